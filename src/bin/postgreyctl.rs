//! postgreyctl(8): the administrator's tool.
fn main() {}
