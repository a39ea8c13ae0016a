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
