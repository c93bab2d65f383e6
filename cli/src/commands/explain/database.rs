//! The fields of what `hactl db` shows.

use super::fields::{Field, f};

pub(super) const GROUP: &[Field] = &[
    f("name", "name", "the group's name"),
    f(
        "spec.version",
        "number",
        "major release of PostgreSQL; 0: what the nodes have",
    ),
    f(
        "spec.durability",
        "enum",
        "what an acknowledged commit is worth: quorum (on standbys too; fewer are asked when they are gone for long), \
         quorum-strict (never fewer than one; writes wait), async (on the primary alone)",
    ),
    f(
        "spec.instances",
        "number",
        "instances to keep; the master chooses nodes for those that are missing; 0: the members",
    ),
    f("spec.port", "port", "of PostgreSQL on each node"),
    f(
        "spec.directory",
        "path",
        "data directory on each node; empty: one of had's; an existing cluster is adopted",
    ),
    f(
        "spec.parameters",
        "map",
        "settings of PostgreSQL, as in postgresql.conf: hactl db config set work_mem=64MB",
    ),
    f(
        "spec.hba[]",
        "text",
        "lines of pg_hba.conf for applications, below the lines that had needs",
    ),
    f("spec.databases[].name", "name", "a database that is made"),
    f("spec.databases[].owner", "name", "the role it belongs to"),
    f(
        "spec.databases[].extensions[]",
        "name",
        "extensions that are made in it",
    ),
    f("spec.roles[].name", "name", "a role that is made"),
    f(
        "spec.roles[].hasPassword",
        "bool",
        "whether it has one; passwords are never shown nor stored, only their SCRAM verifiers",
    ),
    f("spec.roles[].login", "bool", "it may log in"),
    f("spec.roles[].createdb", "bool", "it may create databases"),
    f("spec.roles[].createrole", "bool", "it may create roles"),
    f("spec.roles[].memberOf[]", "name", "roles it is a member of"),
    f(
        "spec.limits.maxSwitchoverLagBytes",
        "bytes",
        "a switchover to a standby that is further behind is refused",
    ),
    f(
        "spec.limits.maxFailoverLagBytes",
        "bytes",
        "an async group fails over by itself only to a standby no further behind",
    ),
    f(
        "spec.limits.degradeAfterMs",
        "ms",
        "commits no longer wait for a standby that is gone for longer",
    ),
    f(
        "spec.limits.slotRetentionBytes",
        "bytes",
        "WAL that is kept for an absent standby",
    ),
    f(
        "spec.limits.startTimeoutMs",
        "ms",
        "a primary without a successor is waited for this long before an operator is told",
    ),
    f(
        "spec.limits.stopTimeoutMs",
        "ms",
        "a switchover's fast stop may take this long",
    ),
    f(
        "spec.limits.promoteTimeoutMs",
        "ms",
        "a promotion may take this long before another instance is tried",
    ),
    f(
        "spec.limits.replaceAfterMs",
        "ms",
        "an instance lost for longer is made anew on another node",
    ),
    f(
        "spec.limits.flapCount",
        "number",
        "so many failures as primary within flapWindowMs hold an instance down",
    ),
    f("spec.limits.flapWindowMs", "ms", "see flapCount"),
    f(
        "spec.limits.holdDownMs",
        "ms",
        "how long an instance that flaps is not made primary",
    ),
    f(
        "spec.proxy.port",
        "port",
        "of every node's proxy, leads to the primary; chosen when the group is made; 0: none",
    ),
    f("spec.proxy.standbyPort", "port", "the same for the standbys"),
    f(
        "spec.proxy.waitMs",
        "ms",
        "a new connection waits this long for a server",
    ),
    f(
        "spec.proxy.maxLagBytes",
        "bytes",
        "a standby that is further behind gets no new connections; 0: any distance",
    ),
    f(
        "spec.proxy.fallBack",
        "bool",
        "the standbys' port leads to the primary while no standby is fit",
    ),
    f(
        "spec.members[].node",
        "name",
        "a node with an instance: hactl db assign NODE --role ROLE",
    ),
    f(
        "spec.members[].role",
        "enum",
        "primary (whenever it can be), sync (commits wait for it), async (they never do)",
    ),
    f(
        "spec.members[].priority",
        "number",
        "of equally good instances the highest takes over; 0: never by itself",
    ),
    f(
        "spec.members[].port",
        "port",
        "where it differs from the group's; 0: it does not",
    ),
    f(
        "spec.members[].directory",
        "path",
        "where it differs from the group's; empty: it does not",
    ),
    f(
        "status.health",
        "enum",
        "healthy; degraded: it serves with less than is wanted; no-primary: nobody takes writes",
    ),
    f("status.problems[]", "text", "why it is not healthy"),
    f(
        "status.primary",
        "name",
        "the node of the primary by the record; null while there is none",
    ),
    f("status.epoch", "number", "numbers the group's primaries; only grows"),
    f(
        "status.phase",
        "enum",
        "new, bootstrapping, steady, switching (the primary is being stopped), electing, promoting",
    ),
    f("status.phaseSince", "time", "since when"),
    f("status.reason", "text", "why it is in this phase"),
    f("status.term", "number", "term of the master that wrote the record"),
    f(
        "status.timeline",
        "number",
        "PostgreSQL's number of the primary's timeline",
    ),
    f(
        "status.systemId",
        "text",
        "PostgreSQL's system identifier; null before the first primary",
    ),
    f(
        "status.rules[].id",
        "number",
        "numbers the rules of durability; several hold while one is being left",
    ),
    f(
        "status.rules[].need",
        "number",
        "how many of the voters must have a commit before it is acknowledged",
    ),
    f("status.rules[].voters[]", "name", "the standbys that count"),
    f(
        "status.rules[].primaries[]",
        "name",
        "the primaries that could acknowledge under it",
    ),
    f("status.applying", "number", "the rule that PostgreSQL is being given"),
    f(
        "status.degraded",
        "text",
        "why fewer standbys are asked than is wanted; null: they are not",
    ),
    f("status.lineage[].epoch", "number", "the epoch that made a timeline"),
    f("status.lineage[].timeline", "number", "PostgreSQL's number of it"),
    f("status.lineage[].forkLsn", "lsn", "where it left the one before"),
    f(
        "status.granters[]",
        "name",
        "instances whose grants keep the primary alive while ZooKeeper is lost",
    ),
    f("status.switchingTo", "name", "the next primary, while switching"),
    f(
        "status.instances[]",
        "instance",
        "the instances, sorted by node: hactl explain instance",
    ),
    f("status.proxies[].node", "name", "a node with a proxy"),
    f(
        "status.proxies[].address",
        "host:port",
        "where it leads to the primary; null: it does not listen",
    ),
    f(
        "status.proxies[].standbyAddress",
        "host:port",
        "where it leads to standbys",
    ),
    f(
        "status.proxies[].connections",
        "number",
        "clients that are connected through it",
    ),
    f("status.proxies[].waiting", "number", "clients that wait for a primary"),
    f("status.proxies[].error", "text", "why it does not listen"),
    f(
        "status.whyNoFailover[]",
        "text",
        "why there is no failover although something is wrong",
    ),
    f(
        "status.lastChange",
        "history",
        "the last change of primary: hactl explain history",
    ),
    f(
        "status.lastFailoverAt",
        "time",
        "the last change of primary that nobody asked for; null: never",
    ),
    f("status.lastFailoverGapMs", "ms", "how long nobody took writes then"),
    f("status.pause.on", "bool", "nothing is done by itself: hactl db pause"),
    f(
        "status.pause.until",
        "time",
        "when it ends by itself; null: when it is resumed",
    ),
    f("status.pause.since", "time", "since when"),
    f("status.pause.reason", "text", "why, as whoever paused it said"),
    f("status.pause.actor", "text", "who paused it"),
    f(
        "status.operationId",
        "id",
        "the operation that changes the primary at the moment",
    ),
    f(
        "status.revision",
        "number",
        "of the last change to its specification, for --revision",
    ),
];

pub(super) const INSTANCE: &[Field] = &[
    f("name", "name", "its node"),
    f("spec.role", "enum", "what an operator assigned: primary, sync, async"),
    f(
        "spec.priority",
        "number",
        "of equally good instances the highest takes over; 0: never by itself",
    ),
    f(
        "spec.chosen",
        "bool",
        "the master chose the node because the group wants more instances",
    ),
    f("status.wanted", "enum", "primary or standby, by the group's record"),
    f(
        "status.reported",
        "enum",
        "primary or standby, as it says itself; unknown: it never reported",
    ),
    f(
        "status.state",
        "enum",
        "empty, stopped, starting, running (a primary that takes writes), closed (one that does not yet), streaming, \
         catching-up, disconnected, sealed (refuses the old primary), promoting, rewinding, copying, initialising, stopping, \
         failed, unknown",
    ),
    f("status.detail", "text", "more on the state"),
    f(
        "status.reportedAt",
        "time",
        "its last report; all that is reported is as old",
    ),
    f("status.voter", "bool", "it counts in the rule of durability in force"),
    f("status.timeline", "number", "PostgreSQL's number of its timeline"),
    f("status.lsn", "lsn", "where its log ends"),
    f(
        "status.behindBytes",
        "bytes",
        "behind the primary; null where it cannot be known",
    ),
    f(
        "status.behindMs",
        "ms",
        "behind the primary; null where it cannot be known",
    ),
    f(
        "status.sync",
        "enum",
        "whether commits wait for it: quorum, sync, potential, async, none",
    ),
    f(
        "status.leaseLeftMs",
        "ms",
        "how long it would go on without its daemon; null: no lease",
    ),
    f("status.upstream", "name", "the node it streams from"),
    f("status.waitsFor", "text", "what it waits for and why"),
    f(
        "status.notEligible[]",
        "text",
        "why it could not be made primary now; empty: it could",
    ),
    f(
        "status.heldUntil",
        "time",
        "it is not made primary before; null: no hold",
    ),
    f("status.heldBecause", "text", "why"),
    f(
        "status.pendingRestart[].parameter",
        "name",
        "a parameter whose new value waits for a restart",
    ),
    f("status.pendingRestart[].current", "text", "its value in force"),
    f("status.pendingRestart[].wanted", "text", "its value after a restart"),
    f("status.address", "host:port", "where PostgreSQL listens for clients"),
    f("status.version", "text", "version of the server"),
    f("status.dataBytes", "bytes", "size of its databases"),
    f("status.walBytes", "bytes", "size of its WAL"),
    f("status.connections", "number", "clients that are connected to it"),
    f("status.errors[]", "text", "what does not work"),
];

pub(super) const HISTORY: &[Field] = &[
    f("name", "number", "the epoch it led to"),
    f("status.epoch", "number", "the epoch it led to"),
    f("status.fromEpoch", "number", "the epoch before"),
    f(
        "status.kind",
        "enum",
        "bootstrap, failover, switchover, restart (the same instance, in place), aborted (the primary was well after all), \
         forced (commits could be lost)",
    ),
    f("status.from", "name", "the primary before"),
    f("status.to", "name", "the primary after"),
    f("status.startedAt", "time", "when it began"),
    f(
        "status.finishedAt",
        "time",
        "when the new primary took writes; null: it still goes on",
    ),
    f("status.durationMs", "ms", "from the one to the other"),
    f(
        "status.gapMs",
        "ms",
        "how long nobody took writes, as the master saw it",
    ),
    f(
        "status.phases[].name",
        "text",
        "for instance suspected, sealed, chosen, promoted, opened, followed",
    ),
    f(
        "status.phases[].atMs",
        "ms",
        "when it was over, counted from the beginning",
    ),
    f("status.phases[].text", "text", "more on it"),
    f("status.reason", "text", "what began it"),
    f("status.actor", "text", "who: user/alice, or master"),
    f("status.timeline", "number", "the new primary's timeline"),
    f("status.forkLsn", "lsn", "where that left the one before"),
    f(
        "status.decision[]",
        "text",
        "each answer as it was judged, and why this instance was chosen",
    ),
    f(
        "status.lostBytes",
        "bytes",
        "estimate of acknowledged commits lost; null: none",
    ),
    f("status.operationId", "id", "the operation, where somebody asked for it"),
    f("status.error", "text", "why it failed; null: it did not"),
];
