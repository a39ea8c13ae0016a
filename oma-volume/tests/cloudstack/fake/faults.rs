//! What goes wrong, when and how often.

use super::devices::Wrong;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// The command is done and its answer never arrives: the connection is cut.
    LoseResponse,
    /// The connection is cut before the command is seen.
    LoseRequest,
    /// The connection is cut, and the request arrives when it is delivered.
    Hold,
    /// The request arrives twice; the second answer is the one that arrives.
    Twice,
    /// 429, with `Retry-After` in seconds.
    Throttle(Option<u32>),
    /// 503.
    Unavailable,
    /// The job of the command takes so many polls.
    Slow(u32),
    /// The job of a detach fails with 530; the guest lets go of the device before the next request is served.
    LateDetach(Late),
    /// The device of an attach is not what it should be.
    Device(Wrong),
    /// The answer of an attach names the next device number instead of the right one.
    DeviceId,
}

/// What a late detach leaves in the cloud's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Still attached, until the detach is repeated.
    StillAttached,
    /// Detached.
    Detached,
    /// Still attached; and once the volume is attached to another machine, that attachment is forgotten while the disk stays there
    /// (apache/cloudstack#14214).
    ForgetsNext,
}

#[derive(Debug)]
struct Fault {
    /// A command, or any.
    command: Option<&'static str>,
    /// So many calls that fit go by first.
    skip: u32,
    times: u32,
    what: What,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    planned: Vec<Fault>,
    /// Of all answers, those that are lost: per mille, and the state of the generator.
    loss: Option<(u64, u64)>,
}

impl Faults {
    pub(crate) fn plan(&mut self, command: Option<&'static str>, skip: u32, times: u32, what: What) {
        self.planned.push(Fault { command, skip, times, what });
    }

    pub(crate) fn lose_per_mille(&mut self, rate: u64, seed: u64) {
        self.loss = (rate > 0).then_some((rate, seed));
    }

    /// What `wanted` picks of what is planned for this call; counted.
    pub(crate) fn take<T>(&mut self, command: &str, wanted: impl Fn(What) -> Option<T>) -> Option<T> {
        let mut taken = None;
        for fault in &mut self.planned {
            let fits = fault.command.is_none_or(|name| name.eq_ignore_ascii_case(command));
            let Some(what) = wanted(fault.what).filter(|_| fits && fault.times > 0) else { continue };
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if taken.is_none() {
                fault.times -= 1;
                taken = Some(what);
            }
        }
        taken
    }

    pub(crate) fn is(&mut self, command: &str, what: What) -> bool {
        self.take(command, |planned| (planned == what).then_some(())).is_some()
    }

    /// Whether chance takes this answer.
    pub(crate) fn is_lost(&mut self) -> bool {
        let Some((rate, state)) = &mut self.loss else { return false };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 1000 < *rate
    }
}
