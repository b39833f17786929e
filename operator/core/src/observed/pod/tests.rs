use super::*;
use serde_json::json;

fn observed(value: serde_json::Value) -> ObservedPod {
    let pod: Pod = serde_json::from_value(value).unwrap();
    ObservedPod::from(&pod)
}

#[test]
fn a_pod_that_the_api_server_has_just_taken() {
    let pod = observed(json!({
        "metadata": {
            "name": "smol-3", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-22T10:00:00Z",
            "labels": {"coterie.dev/role": "rank", "coterie.dev/revision": "r", "coterie.dev/replica": "3"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "not-this"},
                {"apiVersion": "coterie.dev/v1alpha1", "kind": "ModelDeployment", "name": "smol", "uid": "m", "controller": true}
            ]
        },
        "spec": {"containers": [{"name": "injected", "image": "i"}, {"name": "rank", "image": "c"}]},
    }));
    assert_eq!((pod.role, pod.replica, pod.revision.as_str()), (Some(Role::Rank), Some(3), "r"));
    assert_eq!((pod.phase, pod.ready, pod.image.as_str()), (Phase::Pending, false, "c"));
    assert!(pod.is_owned_by("m") && !pod.is_owned_by("not-this"));
    assert_eq!(pod.created.map(|time| time.to_string()).as_deref(), Some("2026-11-22T10:00:00Z"));
}

#[test]
fn a_rank_whose_process_crashes_beside_an_injected_container() {
    let pod = observed(json!({
        "metadata": {"name": "smol-0", "labels": {"coterie.dev/role": "rank"}},
        "spec": {"nodeName": "n", "containers": []},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [
                {"name": "injected", "image": "", "imageID": "", "ready": true, "restartCount": 0},
                {"name": "rank", "image": "", "imageID": "", "ready": false, "restartCount": 4,
                 "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s"}},
                 "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-22T10:00:00Z"}}}
            ]
        }
    }));
    assert_eq!((pod.restarts, pod.ready, pod.unschedulable.as_ref()), (4, false, None));
    assert_eq!(pod.waiting.unwrap().reason, "CrashLoopBackOff");
    let ended = pod.last_termination.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str(), ended.finished.is_some()), (137, "OOMKilled", true));
}

#[test]
fn an_evicted_pod_and_one_that_no_node_takes() {
    let evicted = observed(json!({
        "metadata": {"name": "a", "deletionTimestamp": "2026-11-22T10:00:00Z"},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
    }));
    assert_eq!(evicted.failed, Some(Waiting { reason: "Evicted".into(), message: "low on memory".into() }));
    assert!(evicted.terminating.is_some());
    let unplaced = observed(json!({
        "metadata": {"name": "a"},
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
        ]}
    }));
    assert_eq!(unplaced.unschedulable.as_deref(), Some("0/1 nodes"));
}

#[test]
fn an_empty_object_is_observed_too() {
    assert_eq!(observed(json!({"metadata": {}})), ObservedPod::default());
}

#[test]
fn one_that_was_ready_and_runs_is_silent_and_one_that_starts_is_not() {
    let silent = |state: serde_json::Value, ready: &str| {
        let status = json!({
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-22T10:00:00Z"}
            ],
            "containerStatuses": [
                {"name": "rank", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": state}
            ]
        });
        observed(json!({"metadata": {"labels": {"coterie.dev/role": "rank"}}, "status": status})).silent
    };
    let since = |time: &str| json!({"running": {"startedAt": time}});
    assert!(silent(since("2026-11-22T09:59:59Z"), "False"));
    assert!(!silent(since("2026-11-22T09:59:59Z"), "True"), "it answers");
    assert!(!silent(since("2026-11-22T10:00:00Z"), "False"), "it was another process that was ready");
    assert!(!silent(json!({"waiting": {"reason": "CrashLoopBackOff"}}), "False"));
}
