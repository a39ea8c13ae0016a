//! Replications are listed by state, by VM and from either end.

use super::*;

impl Appliance {
    /// The jobs of a list, page by page of so many, by their VMs' paths.
    async fn listed(&self, query: &str, limit: usize) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.world.get(&format!("/replications?limit={limit}&{query}{after}")).await;
            let rows = page["items"].as_array().unwrap();
            assert!(rows.len() <= limit, "{page}");
            all.extend(rows.iter().map(|row| row["vm_path"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    async fn refused(&self, query: &str, words: &str) {
        let (status, problem) = self.world.ask(Method::GET, &format!("/replications?{query}"), None).await;
        assert_eq!((status, &problem["title"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
}

fn paths(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| path(name)).collect()
}

#[tokio::test]
async fn replications_are_listed_by_state_and_vm_from_either_end_page_by_page() {
    let appliance = Appliance::new();
    for name in ["web", "db", "mail"] {
        appliance.add(name, &["disk-2000"]).await;
        appliance.create(name).await;
    }
    let newest = paths(&["mail", "db", "web"]);
    let oldest = paths(&["web", "db", "mail"]);
    for limit in 1..4 {
        for all in [
            "",
            "status=initializing&",
            "status=failed,initializing&",
            "live=true&",
            "status=ready,initializing,completed&live=true&",
        ] {
            assert_eq!(appliance.listed(all, limit).await, newest, "{all}");
            assert_eq!(appliance.listed(&format!("{all}order=newest"), limit).await, newest, "{all}");
            assert_eq!(appliance.listed(&format!("{all}order=oldest"), limit).await, oldest, "{all}");
        }
    }
    let none = paths(&[]);
    assert_eq!(appliance.listed("status=failed", 9).await, none);
    assert_eq!(appliance.listed("status=completed,cancelled&order=oldest", 9).await, none);
    assert_eq!(appliance.listed("status=completed&live=true", 9).await, none, "of none both is true");
    assert_eq!(appliance.listed("vm_path=/DC/vm/db", 9).await, paths(&["db"]));
    assert_eq!(
        appliance.listed("vm_path=/DC/vm/db&status=initializing&order=oldest", 9).await,
        paths(&["db"])
    );
    assert_eq!(appliance.listed("vm_path=/DC/vm/other", 9).await, none);
    let db = appliance.world.get("/replications?vm_path=/DC/vm/db").await["items"][0].clone();
    let (vm, id) = (db["context_id"].as_str().unwrap(), db["job_id"].as_str().unwrap());
    assert_eq!(appliance.listed(&format!("vm_path=/DC/vm/db&context_id={vm}"), 9).await, paths(&["db"]));
    assert_eq!(appliance.listed(&format!("vm_path=/DC/vm/web&context_id={vm}"), 9).await, none);
    for (query, count) in [("", 1), ("?status=initializing&order=oldest", 1), ("?status=failed", 0)] {
        let of_vm = appliance.world.get(&format!("/vms/{vm}/jobs{query}")).await;
        assert_eq!(of_vm["items"].as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(appliance.listed(&format!("after={id}"), 9).await, paths(&["web"]));
}

#[tokio::test]
async fn a_next_of_the_other_order_and_a_status_that_is_none_are_refused() {
    let appliance = Appliance::new();
    for name in ["web", "db"] {
        appliance.add(name, &["disk-2000"]).await;
        appliance.create(name).await;
    }
    let next = async |order: &str| {
        let page = appliance.world.get(&format!("/replications?limit=1&order={order}")).await;
        page["next"].as_str().unwrap().to_owned()
    };
    appliance.refused(&format!("order=oldest&after={}", next("newest").await), "order").await;
    appliance.refused(&format!("order=newest&after={}", next("oldest").await), "order").await;
    appliance.refused(&format!("after={}", next("oldest").await), "order").await;
    for after in ["job-none", "", "oldest/job-none", "a/b"] {
        for order in ["newest", "oldest"] {
            appliance.refused(&format!("order={order}&after={after}"), "leave").await;
        }
    }
    for status in ["", "broken", "failed,", ",", "Failed", "failed,%20ready"] {
        appliance.refused(&format!("status={status}"), "initializing").await;
    }
    appliance.refused("order=", "newest").await;
    appliance.refused("order=random", "newest").await;
}
