//! Lists, page by page.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::client::{Client, read};
use super::super::error::CloudError;
use super::super::request::Request;

/// Rows of one page; servers refuse more than `default.page.size`, which is 500 unless somebody changed it.
const PAGE: usize = 200;
/// No list has more: a server that goes on and on is not believed.
const PAGES: usize = 2000;
/// How often a list is read that changes meanwhile.
const READS: usize = 5;

type Result<T, E = CloudError> = std::result::Result<T, E>;

/// A row with an id: what tells whether a list changed while it was read.
pub(in super::super) trait Row: DeserializeOwned {
    fn id(&self) -> &str;
}

/// The first page: what asks for one thing or a few needs no more.
pub(in super::super) async fn one_page<T: DeserializeOwned>(
    client: &Client,
    request: &Request,
    key: &str,
) -> Result<Vec<T>> {
    let answer = client.call(request).await?;
    rows(request.command(), answer, key).map(|(rows, _)| rows)
}

/// All pages. Rows move to other pages when one comes or goes in between: a list that changed is read again.
pub(in super::super) async fn all<T: Row>(client: &Client, request: &Request, key: &str) -> Result<Vec<T>> {
    let command = request.command();
    for _ in 0..READS {
        if let Some(all) = once(client, request, key).await? {
            return Ok(all);
        }
    }
    Err(CloudError::Restless { command })
}

/// `None` when the list changed while it was read.
async fn once<T: Row>(client: &Client, request: &Request, key: &str) -> Result<Option<Vec<T>>> {
    let (mut all, mut ids, mut expected) = (Vec::new(), BTreeSet::new(), None);
    for page in 1..=PAGES {
        let request = request.clone().with("page", &page).with("pagesize", &PAGE);
        let answer = client.call(&request).await?;
        let (rows, count) = rows::<T>(request.command(), answer, key)?;
        let is_empty = rows.is_empty();
        if *expected.get_or_insert(count) != count || rows.iter().any(|row| !ids.insert(row.id().to_owned()))
        {
            return Ok(None);
        }
        all.extend(rows);
        if is_empty || all.len() >= count {
            return Ok((all.len() >= count).then_some(all));
        }
    }
    Err(unreadable(request.command(), "it has more pages than any list"))
}

fn unreadable(command: &'static str, why: &str) -> CloudError {
    CloudError::Unreadable { command, source: serde::de::Error::custom(why) }
}

/// The rows of a page and the number of all. An empty list has neither; a page behind the last one has only the number.
fn rows<T: DeserializeOwned>(command: &'static str, mut answer: Value, key: &str) -> Result<(Vec<T>, usize)> {
    let count = answer.get("count").and_then(Value::as_u64);
    let rows: Vec<T> = match answer.get_mut(key).map(Value::take) {
        Some(rows) => read(command, rows)?,
        None => Vec::new(),
    };
    match count {
        Some(count) => Ok((rows, usize::try_from(count).unwrap_or(usize::MAX))),
        // Whether there are more of them nobody knows.
        None if rows.len() >= PAGE => Err(unreadable(command, "a full page and no number of all rows")),
        None => {
            let count = rows.len();
            Ok((rows, count))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::script::{Script, client};
    use super::super::CloudVolume;
    use super::*;

    const LIST: &str = "listVolumes";

    fn page(count: usize, ids: std::ops::Range<usize>) -> Value {
        let rows: Vec<_> = ids.map(|id| json!({"id": format!("v{id}"), "state": "Ready"})).collect();
        if rows.is_empty() { json!({ "count": count }) } else { json!({"count": count, "volume": rows}) }
    }

    async fn read_all(script: &Script) -> Result<usize> {
        let all = all::<CloudVolume>(&client(script), &Request::list_all(LIST), "volume").await?;
        Ok(all.len())
    }

    #[tokio::test(start_paused = true)]
    async fn every_page_is_read() {
        let script = Script::new()
            .answers(LIST, page(450, 0..200))
            .answers(LIST, page(450, 200..400))
            .answers(LIST, page(450, 400..450));
        assert_eq!(read_all(&script).await.unwrap(), 450);
        let sent = script.sent();
        let pages: Vec<_> = sent.iter().map(|sent| (sent.value("page"), sent.value("pagesize"))).collect();
        assert_eq!(pages, [1, 2, 3].map(|page| (Some(["1", "2", "3"][page - 1]), Some("200"))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_list_has_neither_count_nor_rows() {
        assert_eq!(read_all(&Script::new().answers(LIST, json!({}))).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_changes_meanwhile_is_read_again() {
        // One of the first page goes: row 200 moves there and would be missed.
        let went = Script::new()
            .answers(LIST, page(300, 0..200))
            .answers(LIST, page(299, 201..300))
            .answers(LIST, page(299, 1..201))
            .answers(LIST, page(299, 201..300));
        assert_eq!(read_all(&went).await.unwrap(), 299);
        // One goes and one comes: the number stays, a row is there twice.
        let both = Script::new()
            .answers(LIST, page(300, 0..200))
            .answers(LIST, page(300, 199..299))
            .answers(LIST, page(300, 0..200))
            .answers(LIST, page(300, 200..300));
        assert_eq!(read_all(&both).await.unwrap(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_page_without_a_number_is_not_the_whole_list() {
        let uncounted = |count: usize| {
            let mut page = page(count, 0..count);
            page.as_object_mut().unwrap().remove("count");
            page
        };
        assert_eq!(read_all(&Script::new().answers(LIST, uncounted(199))).await.unwrap(), 199);
        let error = read_all(&Script::new().answers(LIST, uncounted(200))).await.unwrap_err();
        assert!(matches!(error, CloudError::Unreadable { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_without_an_end_is_not_read_for_ever() {
        let mut script = Script::new();
        for id in 0..=PAGES {
            script = script.answers(LIST, page(usize::MAX, id..id + 1));
        }
        let error = read_all(&script).await.unwrap_err();
        assert!(matches!(error, CloudError::Unreadable { .. }), "{error}");
        assert_eq!(script.sent().len(), PAGES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_never_rests_is_no_list() {
        let script = Script::new().answers(LIST, page(300, 0..200));
        let error = read_all(&script).await.unwrap_err();
        assert!(matches!(error, CloudError::Restless { .. }), "{error}");
    }
}
