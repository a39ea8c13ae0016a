use serde::Deserialize;

use super::super::request::Request;

/// A resource tag as a volume tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(in super::super) struct Tag {
    pub(in super::super) key: String,
    #[serde(default)]
    pub(in super::super) value: String,
}

/// Sets tags of a volume, all or none. A key that is there already is refused.
pub(in super::super) fn create_tags(volume: &str, tags: &[(String, String)]) -> Request {
    addressed("createTags", volume, tags)
}

/// Takes tags of a volume away.
pub(in super::super) fn delete_tags(volume: &str, tags: &[(String, String)]) -> Request {
    addressed("deleteTags", volume, tags)
}

fn addressed(command: &'static str, volume: &str, tags: &[(String, String)]) -> Request {
    let request = Request::new(command).with("resourcetype", "Volume").with("resourceids", volume);
    request.with_tags(tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}
