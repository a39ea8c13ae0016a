use std::sync::Arc;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, ExportSpec};
use oma_core::{ByteSize, ErrorKind, Fence};
use proptest::prelude::*;

use super::*;

const FOREIGN: &str =
    "# by hand\n[generic]\n\tuser = nbd\n  port=10809\n\n[theirs]\n# a comment\nexportname = /dev/sdb\n";

fn parse(text: &str) -> Result<Document, Failure> {
    Document::parse(Path::new("/etc/config"), text.to_owned())
}

fn record(name: &str) -> Record {
    let spec = ExportSpec {
        name: ExportName::parse(name).unwrap(),
        description: "[generic]\n# OMA ends: x \"y\"".to_owned(),
        access: Access::ReadWrite,
        fence: Fence(7),
        device: Arc::new(MemoryDevice::new("d", ByteSize::mib(1))),
    };
    Record::new(&spec, Path::new("/dev/vdb"))
}

fn with(document: &Document, name: &str) -> Document {
    document.with(&record(name), Path::new("/run/oma/link")).unwrap()
}

fn kind(refused: Result<Document, Failure>) -> ErrorKind {
    refused.unwrap_err().at("publish export", "x").kind()
}

#[test]
fn a_section_of_ours_is_added_behind_what_is_there() {
    let document = with(&parse(FOREIGN).unwrap(), "disk");
    let added = document.text().strip_prefix(FOREIGN).unwrap();
    let (first, rest) = added.split_once('\n').unwrap();
    assert!(first.starts_with("# OMA begins: {\"name\":\"disk\",\"fence\":7,"), "{first}");
    let keys = "exportname = /run/oma/link\nvirtstyle = none\nreadonly = false\nflush = true\nfua = true\ntrim = true\n";
    assert_eq!(rest, format!("[disk]\n{keys}# OMA ends: disk\n"));
    assert_eq!(document.records(), [&record("disk")]);
    assert_eq!(document.foreign()[0].exportname.as_deref(), Some(Path::new("/dev/sdb")));
}

#[test]
fn what_is_not_ours_stays_byte_for_byte() {
    for foreign in
        [FOREIGN, "[generic]", "[generic]\r\n\r\n[a]\r\nexportname = /x\r\n# end", "\n\n[generic]\n\n\n"]
    {
        let before = parse(foreign).unwrap();
        let both = with(&with(&before, "one"), "two");
        let one = both.without(&ExportName::parse("one").unwrap()).unwrap();
        assert_eq!(one.records(), [&record("two")]);
        let none = one.without(&ExportName::parse("two").unwrap()).unwrap();
        let restored = none.text().strip_suffix('\n').filter(|_| !foreign.ends_with('\n'));
        assert_eq!(restored.unwrap_or(none.text()), foreign);
    }
}

#[test]
fn the_generic_section_is_first_or_nothing_is_done() {
    for text in [
        "",
        "# nothing\n",
        "[disk]\n[generic]\n",
        "[Generic]\n",
        "port = 1\n[generic]\n",
        "[generic]\n[generic]\n",
    ] {
        assert_eq!(kind(parse(text)), ErrorKind::Corrupt, "{text:?}");
    }
}

#[test]
fn a_section_of_somebody_else_keeps_its_name() {
    let document = parse(FOREIGN).unwrap();
    let refused = document.with(&record("theirs"), Path::new("/run/oma/link"));
    assert_eq!(kind(refused), ErrorKind::AlreadyExists);
    let refused = document.with(&record("a[generic]"), Path::new("/run/oma/link"));
    assert_eq!(kind(refused), ErrorKind::Invalid);
}

#[test]
fn an_edited_section_of_ours_is_told_and_left_alone() {
    let text = with(&parse(FOREIGN).unwrap(), "disk").text().to_owned();
    for (from, to) in [
        ("# OMA ends: disk\n", ""),
        ("# OMA ends: disk", "# OMA ends: dis"),
        ("[disk]", "[disc]"),
        ("[disk]", "[disk]\n[more]"),
        ("[disk]", "[disk]\n[disk]"),
        ("[disk]\n", ""),
        ("\"fence\":7", "\"fence\":-7"),
        ("# OMA begins: ", "# OMA begins: x"),
        ("# OMA begins: ", "# "),
    ] {
        let edited = text.replace(from, to);
        assert_ne!(edited, text);
        assert_eq!(kind(parse(&edited)), ErrorKind::Corrupt, "{from} → {to}");
    }
}

proptest! {
    #[test]
    fn any_configuration_gets_an_export_and_loses_it_again(
        lines in prop::collection::vec("([a-z ]{1,5}=.{0,8}|#.{0,8}|\\[[a-z]{1,3}\\]|[ \t]*)", 0..12), name in "[a-z]{1,3}"
    ) {
        let text = format!("[generic]\n{}", lines.join("\n"));
        if let Ok(before) = parse(&text)
            && let Ok(with) = before.with(&record(&name), Path::new("/l"))
        {
            prop_assert!(with.text().starts_with(&text));
            let after = with.without(&ExportName::parse(name).unwrap()).unwrap();
            prop_assert_eq!(after.text().trim_end_matches('\n'), text.trim_end_matches('\n'));
        }
    }

    #[test]
    fn no_text_panics(text in "(\\[|# OMA |begins: |ends: |generic\\]|\n|.){0,40}") {
        let _ = parse(&text);
    }
}
