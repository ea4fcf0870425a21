//! The settings that decide: everything the policy needs to know from the
//! command line, already checked and with defaults filled in.
//!
//! Numbers are `f64` because the original computes with Perl numbers and takes
//! its time, in tests, from text such as `1.5e9`.

/// Whose rules are followed: which version of the original, with or without
/// the taRgrey patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// postgrey 1.37 with taRgrey 0.31 (the default).
    Targrey137,
    /// Plain postgrey 1.37: a triplet passes when the delay is over, retries
    /// are not counted.
    Postgrey137,
    /// postgrey 1.34 with taRgrey 0.31: addresses are text.
    Targrey134,
}

impl Compat {
    /// All values, in the order of the manual.
    pub const ALL: [Compat; 3] = [Compat::Targrey137, Compat::Postgrey137, Compat::Targrey134];

    /// The name used by `--compat`.
    pub fn name(self) -> &'static str {
        match self {
            Compat::Targrey137 => "targrey-1.37",
            Compat::Postgrey137 => "postgrey-1.37",
            Compat::Targrey134 => "targrey-1.34",
        }
    }

    /// True where an address is compared as text (1.34), false where it is
    /// parsed (1.37).
    pub fn addresses_are_text(self) -> bool {
        self == Compat::Targrey134
    }

    /// True where a triplet passes after `--retry-count` retries after the
    /// delay, false where the delay alone decides.
    pub fn counts_retries(self) -> bool {
        self != Compat::Postgrey137
    }
}

/// Which part of the client address identifies the client in a triplet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its network (`--lookup-by-subnet`, the default).
    Subnet,
    /// The whole address (`--lookup-by-host`).
    Host,
}

/// The numbers and switches that decide about a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Whose rules are followed.
    pub compat: Compat,
    /// Seconds a new triplet is greylisted (`--delay`, 300).
    pub delay: f64,
    /// Seconds in which a triplet must be seen again (`--retry-window`, 2 days).
    pub retry_window: f64,
    /// Seconds after which an unused record is removed (`--max-age`, 35 days).
    pub max_age: f64,
    /// Retries after the delay before a triplet passes (`--retry-count`, 1).
    pub retry_count: f64,
    /// Which part of the address counts.
    pub lookup: Lookup,
    /// Know a client by the domain of its name if that is a pool
    /// (`--lookup-by-domain`), others as [`Rules::lookup`] says.
    pub by_domain: bool,
    /// Bits of an IPv4 address kept under [`Lookup::Subnet`], 1 to 32 (24).
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address kept under [`Lookup::Subnet`], 1 to 128 (64).
    pub ipv6_prefix: u8,
    /// Passes that make a client auto-whitelisted
    /// (`--auto-whitelist-clients`, 5); `None` switches the auto-whitelist off.
    pub auto_whitelist: Option<f64>,
    /// Seconds between two counted passes of a client
    /// (`--auto-whitelist-delay`, 3600).
    pub auto_whitelist_delay: f64,
    /// The text after `SLEEP` (`--tarpit`, `--targrey`); `None` without a
    /// tarpit.
    pub tarpit: Option<String>,
    /// Greylist only those clients that did not wait in the tarpit
    /// (`--targrey`).
    pub targrey: bool,
    /// Under [`Rules::targrey`] hold a mail once: its further recipients pass
    /// (`--tarpit-per-message`).
    pub tarpit_per_message: bool,
    /// New triplets of a client network that are recorded in an hour (`--max-new`);
    /// `None` for all.
    pub max_new: Option<u32>,
    /// Store SHA-1 hashes instead of triplets and clients (`--privacy`).
    pub privacy: bool,
    /// Log who is sent to the tarpit, and who comes out of it (`--log-tarpit`).
    pub log_tarpit: bool,
    /// Seconds by which the clocks of the hosts that share a store may differ: a time
    /// in a record that lies no further in the future is no mistake (0).
    pub clock_difference: f64,
}

impl Rules {
    /// True if a mail that waits in the tarpit is not held again for its further
    /// recipients.
    pub fn holds_mails_once(&self) -> bool {
        self.targrey && self.tarpit_per_message
    }
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            compat: Compat::Targrey137,
            delay: 300.0,
            retry_window: 2.0 * 86400.0,
            max_age: 35.0 * 86400.0,
            retry_count: 1.0,
            lookup: Lookup::Subnet,
            by_domain: false,
            ipv4_prefix: 24,
            ipv6_prefix: 64,
            auto_whitelist: Some(5.0),
            auto_whitelist_delay: 3600.0,
            tarpit: None,
            targrey: false,
            tarpit_per_message: false,
            max_new: None,
            privacy: false,
            log_tarpit: false,
            clock_difference: 0.0,
        }
    }
}

/// The texts of replies.
#[derive(Clone, Debug, PartialEq)]
pub struct Texts {
    /// The action of a greylisted request (`--greylist-action`).
    pub greylist_action: String,
    /// The text after it (`--greylist-text`), with `%s` and `%r`.
    pub greylist_text: String,
    /// The header of a passed triplet (`--x-greylist-header`), with `%t`,
    /// `%v`, `%d` and `%h`.
    pub x_greylist_header: String,
    /// The value of `%h` (`--hostname`).
    pub hostname: String,
}

impl Default for Texts {
    fn default() -> Self {
        Texts {
            greylist_action: "DEFER_IF_PERMIT".into(),
            greylist_text: "Greylisted, see http://postgrey.schweikert.ch/help/%r.html".into(),
            x_greylist_header: "X-Greylist: delayed %t seconds by postgrey-%v at %h; %d".into(),
            hostname: String::new(),
        }
    }
}
