use std::fmt;

use oma_core::Result;

use super::error::DiscoveryError;

/// So much of a serial arrives in the machine: `VIRTIO_BLK_ID_BYTES`.
const DIGITS: usize = 20;
/// Hexadecimal digits of a UUID.
const WHOLE: usize = 32;

/// The serial by which a machine tells the disk of a volume: the first 20 digits of the volume's UUID, without hyphens, in lower
/// case (`LibvirtComputingResource.diskUuidToSerial` of CloudStack; on virtio, SCSI and SATA alike).
///
/// 80 of 128 bits are left, so two volumes may have one serial. [`DeviceTree`](super::DeviceTree) refuses two disks that bear it, but does
/// not know of a volume that has no disk here: a backend compares its volumes by [`Serial::of_volume_among`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

impl Serial {
    /// The serial of a volume's disk.
    ///
    /// ```
    /// use oma_volume::discovery::Serial;
    ///
    /// let serial = Serial::of_volume("38400000-8cf0-11bd-b24e-10b96e4ef00d")?;
    /// assert_eq!(serial.to_string(), "384000008cf011bdb24e");
    /// # Ok::<(), oma_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for what is no UUID.
    pub fn of_volume(uuid: &str) -> Result<Self> {
        let digits: String = uuid.chars().filter(|&letter| letter != '-').collect();
        if digits.len() != WHOLE || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(DiscoveryError::NotAUuid(uuid.to_owned()).about("find device of volume", &uuid));
        }
        Ok(Self(digits[..DIGITS].to_ascii_lowercase()))
    }

    /// The same, once no other volume has it: of two with one serial nobody could tell which disk is whose. `all` are the UUIDs of the
    /// volumes that may be attached to this machine; the volume's own, and what is no UUID, are passed over.
    ///
    /// # Errors
    /// `Invalid`; `Conflict`, naming the other one.
    pub fn of_volume_among<'a>(uuid: &str, all: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let serial = Self::of_volume(uuid)?;
        let is_other = |other: &&str| {
            !other.eq_ignore_ascii_case(uuid) && Self::of_volume(other).is_ok_and(|theirs| theirs == serial)
        };
        match all.into_iter().find(is_other) {
            None => Ok(serial),
            Some(other) => Err(DiscoveryError::SharedSerial { serial, other: other.to_owned() }
                .about("find device of volume", &uuid)),
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is what a device says its serial is.
    pub(super) fn is(&self, told: &str) -> bool {
        self.0.eq_ignore_ascii_case(told)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::ErrorKind;

    /// The vector of CloudStack's own test.
    const VOLUME: &str = "38400000-8cf0-11bd-b24e-10b96e4ef00d";

    #[test]
    fn a_serial_is_the_first_twenty_digits_in_lower_case() {
        for text in [VOLUME.to_owned(), VOLUME.to_uppercase(), VOLUME.replace('-', "")] {
            assert_eq!(Serial::of_volume(&text).unwrap().as_str(), "384000008cf011bdb24e");
        }
    }

    #[test]
    fn what_is_no_uuid_has_no_serial_and_is_told() {
        for text in ["", "-", "vol-1", &VOLUME[1..], &format!("{VOLUME}0"), &VOLUME.replace('8', "é")] {
            let error = Serial::of_volume(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains("32 hexadecimal digits"), "{}", error.chain());
        }
    }

    #[test]
    fn two_volumes_of_one_serial_are_a_conflict_that_names_the_other() {
        let twin = "38400000-8cf0-11bd-b24e-ffffffffffff";
        let other = "38400000-8cf0-11bd-b24f-10b96e4ef00d";
        let upper = VOLUME.to_uppercase();
        Serial::of_volume_among(VOLUME, [other, VOLUME, &upper, "no uuid"]).unwrap();
        let error = Serial::of_volume_among(VOLUME, [other, twin]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains(twin) && error.resource() == VOLUME, "{}", error.chain());
    }
}
