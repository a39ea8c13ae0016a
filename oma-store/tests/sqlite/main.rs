//! SQLite as a file: opening, refusing, crashing, several writers, and what other programs read in it.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod cleanups;
mod crash;
mod fixture;
mod journal;
mod lists;
mod open;
mod processes;
mod seeds;
mod upgrade;
mod writers;
