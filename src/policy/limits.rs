//! The bounds of a request, which are ours: a hostile peer cannot make the server hold
//! more.

/// Octets of a line, without its end.
pub const MAX_LINE: usize = 64 * 1024;
/// Octets of a request, line ends included.
pub const MAX_REQUEST: usize = 256 * 1024;
/// Attributes of a request.
pub const MAX_ATTRIBUTES: usize = 1000;

/// Which bound a request broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A line of more than [`MAX_LINE`] octets.
    Line,
    /// A request of more than [`MAX_REQUEST`] octets.
    Request,
    /// More than [`MAX_ATTRIBUTES`] attributes.
    Attributes,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Line => write!(f, "a line is longer than {MAX_LINE} octets"),
            Limit::Request => write!(f, "longer than {MAX_REQUEST} octets"),
            Limit::Attributes => write!(f, "more than {MAX_ATTRIBUTES} attributes"),
        }
    }
}
