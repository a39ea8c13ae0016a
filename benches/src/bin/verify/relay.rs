//! A link of a certain speed: passes bytes between unix sockets, so many a second each way, over all connections together.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are passed at once.
const PIECE: usize = 64 << 10;

/// One direction of the link, shared by all connections.
#[derive(Debug)]
struct Lane {
    rate: f64,
    free: Mutex<Instant>,
}

impl Lane {
    fn new(rate: u32) -> Arc<Self> {
        Arc::new(Self { rate: f64::from(rate), free: Mutex::new(Instant::now()) })
    }

    /// Waits until so many bytes have passed.
    #[allow(
        clippy::disallowed_methods,
        reason = "the thread serves one connection, and time is what the link takes"
    )]
    fn pass(&self, bytes: usize) {
        let length = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        let took = Duration::from_secs_f64(length / self.rate);
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + took;
            *free
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// A running link. Nobody can connect to it once it is dropped.
#[derive(Debug)]
pub(crate) struct Relay(PathBuf);

impl Relay {
    /// Listens at one socket and passes everything on to the other.
    pub(crate) fn start(listen: &Path, to: &Path, rate: u32) -> io::Result<Self> {
        let (listener, to) = (UnixListener::bind(listen)?, to.to_owned());
        let (there, back) = (Lane::new(rate), Lane::new(rate));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&to) else { continue };
                let Ok((other, another)) = client.try_clone().and_then(|c| Ok((c, server.try_clone()?)))
                else {
                    continue;
                };
                let (there, back) = (there.clone(), back.clone());
                thread::spawn(move || pump(client, server, &there));
                thread::spawn(move || pump(another, other, &back));
            }
        });
        Ok(Self(listen.to_owned()))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The folder goes with it in any case.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Passes bytes until one end is closed.
fn pump(mut from: UnixStream, mut to: UnixStream, lane: &Lane) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        lane.pass(count);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Whoever is gone already does not hear it.
    let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_link_passes_everything_and_no_faster_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().join("far"));
        let listener = UnixListener::bind(&far).unwrap();
        let _relay = Relay::start(&near, &far, 4 << 20).unwrap();
        let mut client = UnixStream::connect(near).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let begun = Instant::now();
        let sender = thread::spawn(move || {
            client.write_all(&vec![7; 1 << 20]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert_eq!(received, vec![7; 1 << 20]);
        assert!(begun.elapsed() >= Duration::from_millis(240), "{:?}", begun.elapsed());
    }
}
