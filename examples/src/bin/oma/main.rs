//! The command line of OMA.

fn main() {}
