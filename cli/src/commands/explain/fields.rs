//! Every kind and every field of its documents. A test holds this against what is really written.

use super::database;

/// A kind of thing.
#[derive(Debug)]
pub struct Kind {
    /// As in `explain KIND`.
    pub name: &'static str,
    /// What it is also called.
    pub other_names: &'static [&'static str],
    /// What it is.
    pub text: &'static str,
    /// Its fields, in the order in which they are written.
    pub fields: &'static [Field],
}

/// A field of a document.
#[derive(Debug)]
pub struct Field {
    /// Where it stands; `[]` is any item of a list.
    pub path: &'static str,
    /// What it holds.
    pub kind: &'static str,
    /// What it means.
    pub text: &'static str,
}

pub(super) const fn f(path: &'static str, kind: &'static str, text: &'static str) -> Field {
    Field { path, kind, text }
}

/// Every kind.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "cluster",
        other_names: &["clusters"],
        text: "the cluster as its master sees it",
        fields: CLUSTER,
    },
    Kind {
        name: "node",
        other_names: &["nodes"],
        text: "a machine with a daemon, had",
        fields: NODE,
    },
    Kind {
        name: "master",
        other_names: &[],
        text: "the one node that decides for the cluster",
        fields: MASTER,
    },
    Kind {
        name: "user",
        other_names: &["users"],
        text: "who may call the API, by certificate",
        fields: USER,
    },
    Kind {
        name: "event",
        other_names: &["events"],
        text: "an entry of the numbered change log",
        fields: EVENT,
    },
    Kind {
        name: "operation",
        other_names: &["op", "operations"],
        text: "a change that goes on after its call has returned, and survives the master",
        fields: OPERATION,
    },
    Kind {
        name: "alert",
        other_names: &["alerts"],
        text: "something that an administrator should know until it is over",
        fields: ALERT,
    },
    Kind {
        name: "group",
        other_names: &["db", "database", "groups"],
        text: "a database group: PostgreSQL with one primary and its standbys",
        fields: database::GROUP,
    },
    Kind {
        name: "instance",
        other_names: &["instances"],
        text: "one PostgreSQL server of a group",
        fields: database::INSTANCE,
    },
    Kind {
        name: "history",
        other_names: &["failover", "switchover"],
        text: "one change of a group's primary: hactl db history",
        fields: database::HISTORY,
    },
];

const CLUSTER: &[Field] = &[
    f("name", "name", "the cluster's name"),
    f(
        "spec.clusterId",
        "uuid",
        "made with the cluster; tells clusters of one name apart",
    ),
    f(
        "spec.sessionTimeoutMs",
        "ms",
        "a node that is silent for this long is offline; ZooKeeper's session timeout",
    ),
    f(
        "status.health",
        "enum",
        "healthy: all is there; degraded: it works and something is missing; unhealthy: no master, no quorum, an error alert",
    ),
    f("status.reasons[]", "text", "why it is not healthy, the worst first"),
    f("status.master.node", "name", "the master; null while there is none"),
    f("status.master.address", "host:port", "its gRPC endpoint"),
    f(
        "status.master.term",
        "number",
        "numbers the masters; every new one has a higher term",
    ),
    f("status.master.since", "time", "when it became master"),
    f(
        "status.master.pinned",
        "name",
        "the node that a transfer pinned mastership to, while it is online",
    ),
    f("status.zookeeper[].address", "host:port", "a ZooKeeper server"),
    f("status.zookeeper[].reachable", "bool", "whether the master reaches it"),
    f(
        "status.zookeeper[].mode",
        "enum",
        "leader, follower, observer, standalone, or empty",
    ),
    f("status.zookeeper[].version", "text", "its version"),
    f("status.zookeeper[].error", "text", "why it is not reached"),
    f(
        "status.nodes[]",
        "node",
        "the nodes, sorted by name: hactl explain node",
    ),
    f(
        "status.databases[]",
        "group",
        "the database groups, sorted by name: hactl explain group",
    ),
    f(
        "status.alerts[]",
        "alert",
        "what is wrong at the moment: hactl explain alert",
    ),
    f(
        "status.maintenance.on",
        "bool",
        "somebody is at work on the cluster; alerts are held back",
    ),
    f(
        "status.maintenance.until",
        "time",
        "when it ends by itself; null: when it is switched off",
    ),
    f(
        "status.maintenance.reason",
        "text",
        "why, as whoever switched it on said",
    ),
    f("status.maintenance.actor", "text", "who switched it on"),
];

const NODE: &[Field] = &[
    f("name", "name", "the node's name"),
    f("spec.address", "host:port", "where its daemon serves gRPC"),
    f(
        "spec.labels",
        "map",
        "what operators say of it, to select by: hactl node list -l zone=a",
    ),
    f("spec.scenarios[]", "name", "the business scenarios that it serves"),
    f(
        "spec.capacityOverride.cpuMilli",
        "1/1000 core",
        "counted with instead of what was measured; 0: measured",
    ),
    f(
        "spec.capacityOverride.memoryBytes",
        "bytes",
        "counted with instead of what was measured; 0: measured",
    ),
    f(
        "spec.capacityOverride.diskBytes",
        "bytes",
        "counted with instead of what was measured; 0: measured",
    ),
    f("spec.masterEligible", "bool", "whether it may be master"),
    f(
        "spec.masterPreference",
        "number",
        "the highest above 0 among eligible online nodes is made master",
    ),
    f("spec.cordoned", "bool", "nothing new is placed on it"),
    f("spec.draining", "bool", "what runs on it is moved away"),
    f(
        "status.state",
        "enum",
        "pending (not added), online, suspect (silent, its session may live), offline, cordoned, draining, removed",
    ),
    f("status.role", "enum", "master, member, or none"),
    f("status.reason", "text", "why it is in this state; empty when online"),
    f("status.stateSince", "time", "since when"),
    f("status.lastSeen", "time", "its last report to the master"),
    f("status.usage.capacity.cpuMilli", "1/1000 core", "measured processors"),
    f("status.usage.capacity.memoryBytes", "bytes", "measured memory"),
    f("status.usage.capacity.diskBytes", "bytes", "measured disk"),
    f(
        "status.usage.cpuUsedMilli",
        "1/1000 core",
        "processors in use by all processes",
    ),
    f(
        "status.usage.memoryUsedBytes",
        "bytes",
        "memory in use by all processes",
    ),
    f("status.usage.diskUsedBytes", "bytes", "disk in use"),
    f("status.usage.daemonRssBytes", "bytes", "resident memory of had itself"),
    f("status.conditions[]", "text", "what is wrong with the node"),
    f(
        "status.restarting",
        "bool",
        "a restart was announced: it is expected back within its session",
    ),
    f(
        "status.registeredAddress",
        "host:port",
        "where its daemon says it serves; differs from spec only by mistake",
    ),
    f("status.httpAddress", "host:port", "health and metrics"),
    f("status.version", "text", "version of its daemon"),
    f("status.os", "text", "its operating system"),
    f(
        "status.databases[].group",
        "name",
        "a database group that it has an instance of",
    ),
    f(
        "status.databases[].role",
        "enum",
        "primary or standby, by the group's record",
    ),
    f(
        "status.databases[].state",
        "enum",
        "what the instance does: hactl explain instance.state",
    ),
    f("status.bootId", "uuid", "made at each start of its daemon"),
    f("status.startedAt", "time", "when its daemon started"),
    f(
        "status.certificateExpiresAt",
        "time",
        "when its certificate expires: hactl node renew NODE",
    ),
    f("status.clockSkewMs", "ms", "its clock minus the master's"),
    f("status.revision", "number", "of its last change, for --revision"),
];

const MASTER: &[Field] = &[
    f("name", "name", "always master"),
    f("status.node", "name", "the master; null while there is none"),
    f("status.address", "host:port", "its gRPC endpoint"),
    f(
        "status.term",
        "number",
        "numbers the masters; every new one has a higher term",
    ),
    f("status.since", "time", "when it became master"),
    f(
        "status.pinned",
        "name",
        "the node that a transfer pinned mastership to, while it is online",
    ),
];

const USER: &[Field] = &[
    f("name", "name", "the user's name, as it stands in its certificate"),
    f("spec.kind", "enum", "user, or node for the certificates of a node"),
    f(
        "spec.role",
        "enum",
        "viewer reads; operator changes nodes and mastership; admin also manages users",
    ),
    f("status.state", "enum", "valid, expired or revoked"),
    f(
        "status.serials[]",
        "hex",
        "serial numbers of its certificates, newest last",
    ),
    f(
        "status.expiresAt",
        "time",
        "when the newest one expires: hactl user renew NAME",
    ),
    f("status.createdAt", "time", "when it was added"),
    f("status.revokedAt", "time", "when it was revoked; null if it was not"),
];

const EVENT: &[Field] = &[
    f("name", "number", "its sequence number"),
    f(
        "status.seq",
        "number",
        "numbers the changes of the cluster without gaps",
    ),
    f("status.time", "time", "when the master wrote it"),
    f(
        "status.kind",
        "text",
        "for instance node.online, node.offline, master.elected, access.denied",
    ),
    f(
        "status.subject",
        "text",
        "for instance node/n1, cluster, user/alice, master",
    ),
    f("status.severity", "enum", "info, warning, error"),
    f("status.text", "text", "what happened, one line"),
    f("status.before", "any", "the value before, where it changed one"),
    f("status.after", "any", "the value after, where it changed one"),
    f("status.cause", "text", "why: what was observed, or the --reason"),
    f("status.actor", "text", "who: user/alice, node/n1, or master"),
    f("status.term", "number", "the master's term that wrote it"),
];

const OPERATION: &[Field] = &[
    f("name", "id", "its id"),
    f("spec.kind", "text", "for instance master.transfer, node.drain"),
    f("spec.subject", "text", "what it is about, for instance node/n1"),
    f("spec.arguments", "map", "what was asked for"),
    f("spec.actor", "text", "who asked"),
    f("spec.reason", "text", "the --reason"),
    f("status.state", "enum", "pending, running, succeeded, failed, cancelled"),
    f("status.createdAt", "time", "when it was asked for"),
    f("status.finishedAt", "time", "when it ended; null while it has not"),
    f("status.durationMs", "ms", "from the one to the other"),
    f("status.steps[].time", "time", "when the step was done"),
    f("status.steps[].text", "text", "what was done"),
    f("status.errorCode", "code", "why it failed: hactl explain CODE"),
    f("status.error", "text", "why it failed"),
    f(
        "status.result",
        "text",
        "what came of it, where there is more to say than that it succeeded",
    ),
];

const ALERT: &[Field] = &[
    f("name", "id", "stable as long as it lasts, for instance certificate/n1"),
    f("status.severity", "enum", "info, warning, error"),
    f("status.subject", "text", "what it is about, for instance node/n1"),
    f("status.text", "text", "what is wrong"),
    f("status.since", "time", "since when"),
    f("status.hint", "text", "what to do, a command where there is one"),
];
