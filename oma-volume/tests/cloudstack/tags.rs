//! Tags, by which things are told apart.

use oma_core::conformance::{self, Trial};
use serde_json::json;

use super::caller::Caller;
use super::fake::{Fake, Options};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("tags::a_key_is_set_once_and_all_keys_of_a_call_or_none", &[], once),
        conformance::trial("tags::lists_are_filtered_by_tags_and_show_them", &[], filtered),
        conformance::trial("tags::they_go_by_key_by_value_and_with_their_volume", &[], gone),
    ]
}

const OWNER: [(&str, &str); 2] = [("tags[0].key", "oma.owner"), ("tags[0].value", "site-1")];

async fn subject() -> (Fake, Caller, String) {
    let fake = Fake::start(Options::default()).await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await.to_string();
    (fake, user, volume)
}

async fn tag(
    user: &Caller,
    volume: &str,
    pairs: &[(&str, &str)],
) -> Result<serde_json::Value, (u64, String)> {
    let mut all = vec![("resourcetype", "Volume"), ("resourceids", volume)];
    all.extend(pairs);
    user.job("createTags", &all).await
}

async fn once() {
    let (fake, user, volume) = subject().await;
    assert_eq!(tag(&user, &volume, &OWNER).await, Ok(json!({"success": true})));
    let more = [OWNER[0], OWNER[1], ("tags[1].key", "oma.disk"), ("tags[1].value", "disk-2000")];
    let (code, text) = tag(&user, &volume, &more).await.unwrap_err();
    assert_eq!((code, text), (530, format!("tag oma.owner already on Volume with id {volume}")));
    assert_eq!(fake.tags().len(), 1);
    assert_eq!(tag(&user, &volume, &[("tags[0].key", "k"), ("tags[0].value", "")]).await.unwrap_err().0, 431);
    let (code, text) = tag(&user, &fake.zone.to_string(), &OWNER).await.unwrap_err();
    assert!(code == 431 && text.contains("Unable to find resource"), "{text}");
    let missing = user.refused("createTags", &[("resourcetype", "Volume"), ("resourceids", &volume)]).await;
    assert!(missing.0 == 431 && missing.2.contains("missing parameter tags"), "{missing:?}");
}

async fn filtered() {
    let (fake, user, volume) = subject().await;
    let second = user.create(&fake, "w", "1").await.to_string();
    tag(&user, &format!("{volume},{second}"), &OWNER).await.unwrap();
    tag(&user, &second, &[("TAGS[7].key", "oma.disk"), ("tags[7].value", "disk-2000")]).await.unwrap();
    assert_eq!(user.done("listVolumes", &OWNER).await["count"], 2);
    let found =
        user.done("listVolumes", &[("tags[0].key", "oma.disk"), ("tags[0].value", "disk-2000")]).await;
    assert_eq!((&found["count"], &found["volume"][0]["tags"].as_array().unwrap().len()), (&json!(1), &2));
    assert_eq!(
        user.done("listVolumes", &[("tags[0].key", "oma.disk"), ("tags[0].value", "x")]).await,
        json!({})
    );
    let tags = user.done("listTags", &[("resourceid", &second), ("key", "oma.disk")]).await;
    assert_eq!((&tags["count"], &tags["tag"][0]["value"]), (&json!(1), &json!("disk-2000")));
    let other = Caller::new(&fake, &fake.other);
    assert_eq!(other.done("listTags", &[("listall", "true")]).await, json!({}));
    assert_eq!(
        other.refused("deleteTags", &[("resourcetype", "Volume"), ("resourceids", &volume)]).await.0,
        531
    );
}

async fn gone() {
    let (fake, user, volume) = subject().await;
    tag(&user, &volume, &OWNER).await.unwrap();
    let on = [("resourcetype", "Volume"), ("resourceids", volume.as_str())];
    let other = [on[0], on[1], OWNER[0], ("tags[0].value", "site-2")];
    assert_eq!(user.job("deleteTags", &other).await.unwrap_err().0, 431, "another value is another tag");
    user.job("deleteTags", &[on[0], on[1], OWNER[0]]).await.unwrap();
    assert!(fake.tags().is_empty());
    tag(&user, &volume, &OWNER).await.unwrap();
    user.done("deleteVolume", &[("id", &volume)]).await;
    assert!(fake.tags().is_empty());
}
