use super::*;
use serde_json::json;

fn slice(name: &str, service: &str, endpoints: serde_json::Value) -> Heard<EndpointSlice> {
    Heard(Event::Apply(
        serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": name, "labels": {SERVICE_NAME: service}},
            "addressType": "IPv4", "ports": [{"name": "x", "port": 1}, {"name": "http", "port": 8080}],
            "endpoints": endpoints,
        }))
        .unwrap(),
    ))
}

fn model(
    event: impl Fn(ModelDeployment) -> Event<ModelDeployment>,
    name: &str,
    served: Option<&str>,
) -> Told<Known> {
    let object = json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"namespace": "chat", "name": name},
        "spec": {"model": {"servedName": served, "source": {"what": "ever"}}, "later": 1},
        "status": {"conditions": []},
    });
    Heard(event(serde_json::from_value(object).unwrap())).map(&|model| Some(known(model)))
}

fn ranks_of(seen: &Seen, name: &str) -> Vec<String> {
    let models = table(seen).models;
    models.iter().find(|model| model.key.name == name).unwrap().ranks.iter().cloned().collect()
}

#[test]
fn ready_endpoints_of_all_slices_of_the_service_are_the_ranks() {
    let mut seen = Seen::default();
    seen.models.take(0, model(Event::Apply, "smol", Some("org/smol")));
    let first = json!([
        {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        {"addresses": ["10.0.0.3"]},
    ]);
    seen.slices.take(0, slice("a", "smol", first).map(&ready_addresses));
    seen.slices.take(0, slice("b", "smol", json!([{"addresses": ["fd00::1"]}])).map(&ready_addresses));
    seen.slices.take(0, slice("c", "smol-ranks", json!([{"addresses": ["10.0.0.9"]}])).map(&ready_addresses));
    assert_eq!(ranks_of(&seen, "smol"), ["10.0.0.1:8080", "10.0.0.3:8080", "[fd00::1]:8080"]);
    assert_eq!(table(&seen).models[0].served_name, "org/smol");
    seen.slices.take(0, slice("a", "smol", json!([])).map(&ready_addresses));
    assert_eq!(ranks_of(&seen, "smol"), ["[fd00::1]:8080"]);
}

#[test]
fn a_new_list_replaces_what_its_watch_told_and_nothing_else() {
    let mut seen = Seen::default();
    let begins = || Heard(Event::<ModelDeployment>::Init).map(&|model| Some(known(model)));
    let done = || Heard(Event::<ModelDeployment>::InitDone).map(&|model| Some(known(model)));
    seen.models.take(0, model(Event::Apply, "a", None));
    seen.models.take(1, model(Event::Apply, "b", None));
    seen.models.take(0, begins());
    seen.models.take(0, model(Event::InitApply, "c", None));
    let names =
        |seen: &Seen| table(seen).models.iter().map(|model| model.key.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&seen), ["a", "b"], "a list counts once it is whole");
    seen.models.take(0, done());
    assert_eq!(names(&seen), ["b", "c"]);
    seen.models.take(1, model(Event::Delete, "b", None));
    assert_eq!(names(&seen), ["c"]);
}

#[test]
fn the_time_to_a_first_token_is_read_where_scaling_has_it() {
    let of = |spec: serde_json::Value| {
        let metadata = serde_json::json!({"name": "smol", "namespace": "chat"});
        known(&serde_json::from_value(serde_json::json!({
            "apiVersion": "coterie.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec
        })).unwrap()).ttft
    };
    let slo = serde_json::json!({"maxReplicas": 2, "slo": {"ttftMilliseconds": 700, "itlMilliseconds": 50}});
    assert_eq!(of(serde_json::json!({"model": {}, "scaling": slo})), Some(Duration::from_millis(700)));
    assert_eq!(of(serde_json::json!({"model": {}, "replicas": 2})), None);
    assert_eq!(of(serde_json::json!({"model": {}, "scaling": null})), None);
}
