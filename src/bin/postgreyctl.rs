//! postgreyctl(8).
fn main() {}
