//! Labels, annotations, field manager, port names: every string that two processes, or a person with kubectl,
//! must spell alike.

/// API group of every Coterie resource.
pub const GROUP: &str = "coterie.dev";
/// Version of the ModelDeployment resource.
pub const VERSION: &str = "v1alpha1";
/// Its kind.
pub const KIND: &str = "ModelDeployment";
/// Its plural, as in URLs.
pub const PLURAL: &str = "modeldeployments";
/// The operator's server-side-apply field manager.
pub const FIELD_MANAGER: &str = "coterie-operator";
/// Name of the Lease by which operators elect a leader.
pub const LEASE: &str = "coterie-operator";

/// Label: the ModelDeployment that an object belongs to (its name).
pub const LABEL_DEPLOYMENT: &str = "coterie.dev/model-deployment";
/// Label: what a pod is for; [`ROLE_RANK`] or [`ROLE_INSPECT`].
pub const LABEL_ROLE: &str = "coterie.dev/role";
/// Label: the hash of the spec fields that a pod was made from.
pub const LABEL_REVISION: &str = "coterie.dev/revision";
/// Label: the number of the replica that a pod is (part of).
pub const LABEL_REPLICA: &str = "coterie.dev/replica";
/// Label: the number of a pod's rank in its replica; absent on the only rank of a replica.
pub const LABEL_RANK: &str = "coterie.dev/rank";
/// Label of a rank: `true`, or `false` once it is out of service. The clients' Service selects `true`.
pub const LABEL_SERVING: &str = "coterie.dev/serving";
/// Value of [`LABEL_ROLE`] on a pod that serves the model.
pub const ROLE_RANK: &str = "rank";
/// Value of [`LABEL_ROLE`] on a pod that only looks at the weights.
pub const ROLE_INSPECT: &str = "inspect";

/// Annotation on a ModelDeployment: a new value replaces every pod, one by one (`kubectl annotate`).
pub const ANNOTATION_RESTART: &str = "coterie.dev/restart";
/// Annotation on an applied object: the hash of what was applied, so that an unchanged object is not written again.
pub const ANNOTATION_APPLIED: &str = "coterie.dev/applied";
/// Annotation on a rank that is out of service: since when, RFC 3339.
pub const ANNOTATION_CORDONED: &str = "coterie.dev/cordoned";
/// Annotation on a pod of a replica of several ranks: which expert map and peers its mounted files hold. A change makes
/// the kubelet deliver them at once.
pub const ANNOTATION_EXPERTS: &str = "coterie.dev/experts";
/// Annotation on such a pod: which certificates its mounted files hold.
pub const ANNOTATION_CERTIFICATES: &str = "coterie.dev/exchange-certificates";
/// Annotation on the ConfigMap of an expert map: when and why it followed the one before, JSON.
pub const ANNOTATION_MOVED: &str = "coterie.dev/moved";
/// Annotation on the ConfigMap of an expert map: the redundant slots a layer that it was made for.
pub const ANNOTATION_REDUNDANT: &str = "coterie.dev/redundant";
/// Annotation on the Secret of the exchange: from when to when its certificate is valid, `from/to` in RFC 3339.
pub const ANNOTATION_VALID: &str = "coterie.dev/valid";
/// Annotation on the Secret of the exchange: the same of the certificate that comes next, once there is one.
pub const ANNOTATION_NEXT_VALID: &str = "coterie.dev/next-valid";

/// Name of the rank's container in its pod.
pub const CONTAINER_RANK: &str = "rank";
/// Name of the inspecting container in its pod.
pub const CONTAINER_INSPECT: &str = "inspect";
/// Name of the HTTP port of a rank, and of its Service's port.
pub const PORT_HTTP: &str = "http";
/// Name of the port of a router on which the operator asks what waits there.
pub const PORT_METRICS: &str = "metrics";
/// Its number.
pub const METRICS_PORT: u16 = 9090;
/// Number of a rank's HTTP port.
pub const HTTP_PORT: u16 = 8080;
/// Name of the port on which the ranks of a replica reach each other's experts.
pub const PORT_EXCHANGE: &str = "exchange";
/// Its number.
pub const EXCHANGE_PORT: u16 = 8081;
/// Where the ConfigMap with the expert map and the peers is mounted in a rank.
pub const EXPERTS_MOUNT: &str = "/etc/coterie/experts";
/// Key of the expert map in that ConfigMap, and its file's name.
pub const EXPERT_MAP_FILE: &str = "map.json";
/// Key of the list of peers in that ConfigMap, and its file's name.
pub const PEERS_FILE: &str = "peers.json";
/// Key of the expert map as a table for people in that ConfigMap.
pub const EXPERT_TABLE_FILE: &str = "map.txt";
/// Where the Secret with the certificates of the exchange is mounted in a rank.
pub const EXCHANGE_TLS_MOUNT: &str = "/etc/coterie/exchange-tls";
/// Key, and name of the file, of the authorities' certificates, PEM: which certificates are trusted.
pub const TLS_AUTHORITY_FILE: &str = "ca.crt";
/// Key, and name of the file, of the ranks' certificate, PEM.
pub const TLS_CERTIFICATE_FILE: &str = "tls.crt";
/// Key, and name of the file, of its private key, PEM.
pub const TLS_KEY_FILE: &str = "tls.key";
/// Key of the certificate that comes next; not mounted.
pub const TLS_NEXT_CERTIFICATE: &str = "next.crt";
/// Key of its private key; not mounted.
pub const TLS_NEXT_KEY: &str = "next.key";
/// The name that every exchange certificate of every ModelDeployment is made out to: who has one signed by the
/// ModelDeployment's own authority is one of its ranks, whatever its address.
pub const EXCHANGE_TLS_NAME: &str = "rank.exchange.coterie.dev";
/// Number of the port of a ModelDeployment's Service.
pub const SERVICE_PORT: u16 = 80;
/// Where the model's source is mounted, read-only, in rank and inspect pods.
pub const MODEL_MOUNT: &str = "/model";
/// The resource name under which nodes offer NVIDIA GPUs.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// Label of a node, as NVIDIA's GPU feature discovery sets it: how many GPUs it has.
pub const LABEL_GPU_COUNT: &str = "nvidia.com/gpu.count";
/// Label of a node, as NVIDIA's GPU feature discovery sets it: memory of one of its GPUs, MiB.
pub const LABEL_GPU_MEMORY: &str = "nvidia.com/gpu.memory";
