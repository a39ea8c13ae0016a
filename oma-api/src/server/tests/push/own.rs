//! What an agent learns of others' VMs and jobs, and what it is given of them: nothing.

use super::*;

#[tokio::test]
async fn l30_an_agent_that_takes_the_path_of_another_vm_learns_nothing_of_that() {
    let appliance = Appliance::new().await;
    appliance.create("agent-a", push("web", "b@1")).await;
    let mut renamed = push("web2", "b@1");
    renamed["push"]["instance_uuid"] = json!("7b1f6d1e-0000-4000-8000-000000000007");
    appliance.create("agent-b", renamed.clone()).await;
    renamed["vm_path"] = json!("/DC/vm/web");
    for asked in [push("web", "b@1"), renamed] {
        let (status, told) = appliance.ask("agent-b", Method::POST, "/replications", Some(asked)).await;
        assert_eq!(status, StatusCode::CONFLICT, "{told}");
        let told = told.to_string();
        assert!(told.contains("this path is another VM's here; ask the operator"), "{told}");
        assert!(!told.contains("agent-1") && !told.contains("of another VM, "), "{told}");
    }
}

#[tokio::test]
async fn l30_of_two_agents_with_one_key_at_once_only_one_has_the_job() {
    let appliance = Appliance::new().await;
    for round in 0..20 {
        let (name, key) = (format!("web{round}"), format!("key-{round}"));
        let ask = |token: &str| {
            let body = Some(push(&name, "b@1"));
            appliance.send(asked(Method::POST, "/replications", token, Some(&key), body))
        };
        let (a, b) = tokio::join!(ask("agent-a"), ask("agent-b"));
        let made = |status: StatusCode| status == StatusCode::CREATED;
        assert!(made(a.0) != made(b.0), "{a:?} {b:?}");
        let (loser, refusal) = if made(a.0) { ("agent-b", b) } else { ("agent-a", a) };
        assert_eq!(refusal.0, StatusCode::CONFLICT, "{refusal:?}");
        let path = format!("/replications/job-{key}");
        assert_eq!(appliance.ask(loser, Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn an_agents_own_jobs_are_listed_by_state_from_either_end_page_by_page() {
    let appliance = Appliance::new().await;
    for name in ["web", "db", "mail"] {
        appliance.create("agent-a", push(name, "b@1")).await;
    }
    appliance.create("agent-b", push("other", "b@1")).await;
    let listed = async |query: &str| {
        let (mut told, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/replications?limit=2&{query}{after}");
            let (status, page) = appliance.ask("agent-a", Method::GET, &path, None).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let rows = page["items"].as_array().unwrap();
            told.extend(rows.iter().map(|job| job["vm_path"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { return told };
            after = format!("&after={next}");
        }
    };
    // Of one moment they may be in any order.
    let mut newest = listed("order=newest").await;
    assert_eq!(listed("status=initializing,replicating,provisioning,ready").await, newest);
    newest.reverse();
    assert_eq!(listed("order=oldest").await, newest);
    newest.sort();
    assert_eq!(newest, ["/DC/vm/db", "/DC/vm/mail", "/DC/vm/web"]);
    assert_eq!(listed("order=oldest&vm_path=/DC/vm/db").await, ["/DC/vm/db"]);
    for none in ["order=oldest&status=failed,cancelled", "vm_path=/DC/vm/other"] {
        assert!(listed(none).await.is_empty(), "{none}");
    }
}
