//! Parameters of a request: decoded, merged, read by type.

use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// Parameters by name, as they came, each name once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Query string and body of a request. Of equal names the first counts, the query's before the body's.
    pub(crate) fn parse(query: &str, body: &str) -> Self {
        let mut params = Self::default();
        for token in query.split('&').chain(body.split('&')) {
            // A token without `=` is ignored.
            if let Some((name, value)) = token.split_once('=') {
                params.push(decoded(name), decoded(value));
            }
        }
        params
    }

    /// Of pairs that nobody encoded.
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let mut params = Self::default();
        for (name, value) in pairs {
            params.push((*name).to_owned(), (*value).to_owned());
        }
        params
    }

    fn push(&mut self, name: String, value: String) {
        if self.exact(&name).is_none() {
            self.0.push((name, value));
        }
    }

    /// Ignores the parameters of these names.
    pub(crate) fn forget(&mut self, names: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| !names(name));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of exactly this name: `command` and `response` are looked up so.
    pub(crate) fn exact(&self, name: &str) -> Option<&str> {
        self.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// The value of a name in any case.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// `Boolean.valueOf`: whatever is not "true" is false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// An id; an empty value is none.
    pub(crate) fn uuid(&self, name: &str) -> Option<Uuid> {
        parse_uuid(self.text(name)?)
    }

    /// The id of a parameter that the command requires and that was found to be one.
    pub(crate) fn id(&self, name: &str) -> Uuid {
        self.uuid(name).expect("required parameters were checked")
    }

    /// A list with commas between.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let list = self.text(name)?;
        Some(list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
    }

    pub(crate) fn has_map(&self, name: &str) -> bool {
        self.iter().any(|(given, _)| map_index(given, name).is_some())
    }

    /// Key, value and customer of `name[0].key=…&name[0].value=…`, in the order of the numbers.
    pub(crate) fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let mut indexes: Vec<u32> = self
            .iter()
            .filter_map(|(given, _)| map_index(given, name))
            .filter(|(_, field)| *field == "key")
            .map(|(index, _)| index)
            .collect();
        indexes.sort_unstable();
        let field = |index: u32, wanted: &str| {
            let found = self.iter().find(|(given, _)| map_index(given, name) == Some((index, wanted)));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        indexes.into_iter().map(|index| (field(index, "key"), field(index, "value"))).collect()
    }
}

/// Number and field of `name[3].field`; the name in any case, the field in its own.
fn map_index<'a>(given: &'a str, name: &str) -> Option<(u32, &'a str)> {
    let (before, rest) = given.split_once('[')?;
    let (index, field) = rest.split_once("].")?;
    before.eq_ignore_ascii_case(name).then_some(())?;
    Some((index.parse().ok()?, field))
}

/// Only the form with hyphens.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::parse_str(text).ok())?
}

/// The only form that `customid` and `customjobid` are taken in.
pub(crate) fn parse_custom(text: &str) -> Option<Uuid> {
    parse_uuid(text).filter(|_| text == text.to_ascii_lowercase())
}

/// `URLDecoder.decode`.
fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
