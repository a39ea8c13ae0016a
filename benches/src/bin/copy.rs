//! Compares full copies.

fn main() {}
