//! postgrey(8).
fn main() {}
