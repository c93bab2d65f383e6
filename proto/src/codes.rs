//! The error codes. Each is stable for ever: its number, its meaning and its exit code. `hactl explain CODE` prints the
//! entry; `docs/errors/` holds the same text.

/// Exit codes of `hactl`.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed for a reason that has no code of its own below.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// `--check` found the cluster unhealthy.
    pub const UNHEALTHY: u8 = 3;
    /// Not permitted.
    pub const DENIED: u8 = 4;
    /// Not found.
    pub const NOT_FOUND: u8 = 5;
    /// The object was changed meanwhile.
    pub const CONFLICT: u8 = 6;
    /// Cannot be placed.
    pub const UNPLACEABLE: u8 = 7;
    /// `--exit-code`: changes exist.
    pub const CHANGES: u8 = 8;
    /// Refused as unsafe or unconfirmed.
    pub const REFUSED: u8 = 9;
    /// Unreachable, no master or no quorum.
    pub const UNREACHABLE: u8 = 10;
    /// Failed and rolled back.
    pub const ROLLED_BACK: u8 = 11;
    /// Partly done.
    pub const PARTLY: u8 = 12;
    /// Timed out; the operation goes on.
    pub const TIMED_OUT: u8 = 124;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

/// One error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `HA` and four digits.
    pub id: &'static str,
    /// What it means, one line.
    pub title: &'static str,
    /// Exit code of `hactl`.
    pub exit: u8,
    /// Whether trying the same again may succeed.
    pub retryable: bool,
    /// Why it happens and what to do, for people.
    pub text: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $exit:ident $retry:literal $title:literal $text:literal)*) => {
        $(#[doc = $title] pub const $name: Code = Code { id: $id, title: $title, exit: exit::$exit, retryable: $retry, text: $text };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

// HA00 command line and files · HA01 reaching the cluster · HA02 access · HA03 nodes · HA04 databases
// HA05 operations · HA06 events · HA07 cluster · HA08 daemon start · HA09 playground
codes! {
    USAGE "HA0001" USAGE false "the command line is wrong"
        "hactl could not make sense of its arguments. `hactl COMMAND --help` shows the right form."
    BAD_FILE "HA0002" FAILED false "a file cannot be read or written"
        "A file that hactl needs is missing, unreadable, or not in the form expected. The message names the file and the reason."
    NO_CONTEXT "HA0003" USAGE false "no cluster is chosen"
        "hactl knows no cluster to talk to. `hactl context list` shows the ones it knows, `hactl context use NAME` chooses one, `hactl cluster init` makes a new one and `hactl context add --bundle FILE` brings in a bundle that another operator wrote."
    UNKNOWN_CONTEXT "HA0004" NOT_FOUND false "there is no context of this name"
        "`hactl context list` shows the contexts of this user."
    BAD_BUNDLE "HA0005" FAILED false "a bundle is damaged or of the wrong kind"
        "A bundle is the TOML file that `hactl cluster init`, `hactl node add` and `hactl user add` write. A node's bundle starts had; a user's bundle makes a context. Write it anew if it was damaged."
    NO_CA "HA0006" DENIED false "this needs the cluster's certificate authority"
        "Certificates are signed with the key that `hactl cluster init` made and that never leaves the operator who keeps it. Bring it into this context with `hactl context add --ca FILE`, or ask the operator who has it."
    BAD_NAME "HA0007" USAGE false "a name is not allowed"
        "Names of clusters, nodes, users and contexts are 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen; a node's has at most 50, for PostgreSQL cuts what is made of it at 63 bytes."
    EXISTS_LOCALLY "HA0008" REFUSED false "this would overwrite something on this machine"
        "A context, a bundle or a directory of this name exists already. Choose another name or remove the old one first."
    BAD_VALUE "HA0009" USAGE false "a value is out of range or malformed"
        "The message names the flag or field and what it takes."
    UNCONFIRMED "HA0010" REFUSED false "the step needs a confirmation"
        "The command changes something that is in use. Give --yes (or --confirm NAME where the message asks for it); without a terminal hactl never asks."
    INTERRUPTED "HA0011" INTERRUPTED false "interrupted"
        "Waiting was ended; what was begun in the cluster goes on. `hactl op list` shows it."
    FIELD_UNKNOWN "HA0012" NOT_FOUND false "nothing of this name can be explained"
        "`hactl explain` knows kinds (node), fields (node.labels) and codes (HA0301). `hactl explain` alone lists the kinds."
    UNREACHABLE "HA0101" UNREACHABLE true "no node of the cluster could be reached"
        "None of the endpoints of the context answered. The message lists each with its reason. Check that had runs (systemctl status had), the address, and the network; `hactl context test` tries each endpoint."
    NO_MASTER "HA0102" UNREACHABLE true "the cluster has no master at the moment"
        "The master was lost and another is being elected, which takes at most the session timeout (4 s by default). hactl tries again inside its --timeout. If it lasts: `hactl cluster doctor`, and check that a master-eligible node is online and ZooKeeper has its quorum."
    NO_COORDINATOR "HA0103" UNREACHABLE true "the node has no ZooKeeper session"
        "The node that answered cannot reach ZooKeeper's quorum. Nodes keep doing what they do; nothing can be changed until ZooKeeper is back. Check the servers that the message names."
    TIMEOUT "HA0104" TIMED_OUT true "timed out"
        "The answer did not come within --timeout. If an operation was begun it goes on, and its id is printed; `hactl op wait ID` waits for it."
    OUTCOME_UNKNOWN "HA0105" FAILED true "it is not known whether the change was made"
        "The master was lost between the request and its answer. Look at the object (`hactl node show`, `hactl event list`) before trying again; hactl's own retries carry a request id and are safe."
    WRONG_CLUSTER "HA0106" FAILED false "the node belongs to another cluster"
        "The endpoint's certificate was not signed by this context's certificate authority, or names another cluster. Check the endpoint and `hactl context list`."
    SLOW_WATCHER "HA0107" FAILED true "the watcher was too slow"
        "The stream was ended because its reader did not keep up; it may start over from a snapshot."
    INTERNAL "HA0108" FAILED false "the server failed inside"
        "A defect, or a stored value that cannot be read. The message and the log of the node (journalctl -u had) say which."
    DENIED "HA0201" DENIED false "not permitted"
        "The role in the certificate does not allow this call. viewer reads, operator changes nodes and mastership, admin also manages users. `hactl user list` shows roles; an admin with the certificate authority writes a bundle with another role."
    REVOKED "HA0202" DENIED false "the certificate was revoked"
        "An admin revoked this certificate with `hactl user revoke`. Ask for a new bundle."
    CERT_EXPIRED "HA0203" DENIED false "the certificate has expired"
        "hactl checked its own certificate before it dialled. Whoever keeps the certificate authority renews it: `hactl user renew NAME`."
    NOT_A_USER "HA0204" DENIED false "a node's certificate cannot be used for this"
        "Nodes' certificates serve the daemons among each other. Operators use a user's bundle: `hactl user add NAME --role operator`."
    USER_EXISTS "HA0205" REFUSED false "the user exists already"
        "`hactl user list` shows the users; `hactl user renew NAME` writes a new certificate for an existing one."
    USER_UNKNOWN "HA0206" NOT_FOUND false "there is no user of this name"
        "`hactl user list` shows the users."
    LAST_ADMIN "HA0207" REFUSED false "the last admin cannot be revoked"
        "Nobody could manage users afterwards. Add another admin first."
    CERT_NOT_YET_VALID "HA0208" DENIED false "the certificate is not valid yet"
        "The clocks of this machine and of the machine that signed the certificate are far apart. Correct them."
    NODE_EXISTS "HA0301" REFUSED false "the node was added already"
        "`hactl node show NAME` shows it. To replace its certificate use `hactl node renew NAME`; to build it anew, remove it first."
    NODE_UNKNOWN "HA0302" NOT_FOUND false "there is no node of this name"
        "`hactl node list` shows the nodes."
    NODE_ONLINE "HA0303" REFUSED false "an online node cannot be removed"
        "Removing it would leave its daemon running without a place in the cluster. Stop it for good first: `had leave` on the node, or `hactl node drain NAME` and stop the service."
    NODE_NOT_ADDED "HA0304" DENIED false "the node was never added to the cluster"
        "Its daemon registered, and is shown as pending and refused. `hactl node add NAME --addr HOST:PORT` adds it."
    REVISION_CONFLICT "HA0305" CONFLICT false "the object was changed meanwhile"
        "The --revision given is not the object's revision any more. Look at it again and repeat the command."
    NOT_ELIGIBLE "HA0306" REFUSED false "the node cannot be master"
        "It is offline, cordoned, draining or not eligible. `hactl node show NAME` says which; `hactl node label` and `--eligible` change it."
    NODE_NOT_ONLINE "HA0307" REFUSED false "the node is not online"
        "The command needs the node's daemon. `hactl node show NAME` says since when it is gone and why."
    ADDRESS_TAKEN "HA0308" REFUSED false "another node has this address"
        "Every node has a gRPC address of its own. `hactl node list -o wide` shows them."
    NAME_IN_USE "HA0309" REFUSED false "another daemon is registered under this name"
        "Two daemons use the same node name. The one that registered first goes on; the other stops. Look at the address in the message."
    LAST_ELIGIBLE "HA0310" REFUSED false "no master-eligible node would be left"
        "The cluster needs at least one node that may be master."
    GROUP_UNKNOWN "HA0401" NOT_FOUND false "there is no database group of this name"
        "`hactl db list` shows the groups. Commands on databases take the group by --group; with one group in the cluster it may be left out."
    GROUP_EXISTS "HA0402" REFUSED false "the database group was created already"
        "`hactl db status --group NAME` shows it, `hactl db config set` changes it."
    INSTANCE_UNKNOWN "HA0403" NOT_FOUND false "the node has no instance of the group"
        "`hactl db status` shows the instances. `hactl db assign NODE --role sync` makes one."
    GROUP_AMBIGUOUS "HA0404" USAGE false "it is not said which database group is meant"
        "The cluster has several groups: name one with --group. `hactl db list` shows them."
    BAD_GROUP "HA0405" USAGE false "the specification of a database group is not allowed"
        "The message names the field and what it takes. `hactl explain group` describes each."
    PARAMETER_OWNED "HA0406" REFUSED false "the parameter is not for operators to set"
        "The daemon owns the parameters that replication, synchronous commits, archiving of the cluster and access depend on, for a wrong value there loses data. What can be chosen of them is a field of the group: durability, need, limits, hba (`hactl explain group`)."
    NO_PRIMARY "HA0407" UNREACHABLE true "the database group has no primary at the moment"
        "Nobody takes writes. `hactl db explain` says what the group waits for; `hactl db history` how the last change of primary went."
    GROUP_BUSY "HA0408" REFUSED true "the primary of the group is being changed already"
        "One change of primary at a time. `hactl op list` shows the operation; wait for it with `hactl op wait ID`, or end it with `hactl op cancel ID`."
    GROUP_PAUSED "HA0409" REFUSED false "the database group is paused"
        "While a group is paused nothing is done to it by itself, and this step would need that. `hactl db resume` ends the pause."
    IS_PRIMARY "HA0410" REFUSED false "the instance is the primary"
        "The step would take the primary away from under its clients. Make another instance primary first: `hactl db switchover`."
    NO_CANDIDATE "HA0411" REFUSED false "no instance can become primary"
        "The message says of each instance why not. `hactl db explain` shows it at any time."
    NOT_CANDIDATE "HA0412" REFUSED false "the instance cannot become primary"
        "It does not stream, is too far behind, is asynchronous, is held down after failures, or waits for something; the message says which. A switchover that went on all the same would pause writes for as long as it takes to catch up."
    PRIMARY_HEALTHY "HA0413" REFUSED false "the primary is healthy"
        "A failover gives a healthy primary up without asking it to hand over. `hactl db switchover` changes the primary in order, with a shorter pause and no doubt."
    DATA_LOSS "HA0414" REFUSED false "acknowledged commits could be lost"
        "Too few instances answer to be sure that the new primary has every acknowledged commit. Bring one of those back that the message names, or accept the loss that it estimates with --allow-data-loss."
    SWITCHOVER_UNDONE "HA0415" ROLLED_BACK true "the switchover failed and was rolled back"
        "The old primary goes on as it was. The steps of the operation say what did not come about in time: `hactl op show ID`."
    COPY_NEEDED "HA0416" REFUSED false "the instance's data are needed"
        "It may hold acknowledged commits that no other instance is known to have, or it is a voter of a rule that is being changed: its directory must not be replaced now. Wait until the group is steady (`hactl wait db/NAME --for healthy`)."
    SYSTEM_ID "HA0417" REFUSED false "the data directory belongs to another database system"
        "A directory with another system identifier is never touched. Move it away, or point data_directory elsewhere."
    NO_PLACE "HA0418" UNPLACEABLE false "no node can take an instance"
        "The message says of each node why not: offline, cordoned, an instance already, the wrong labels, PostgreSQL not installed, too little disk."
    TOO_FEW_VOTERS "HA0419" REFUSED false "too few standbys for the durability that is wanted"
        "Commits wait for `need` synchronous standbys: with fewer, writes would stop. Assign another with `hactl db assign NODE --role sync`, or lower the durability with `hactl db config set durability=…`."
    RESTART_STOPPED "HA0420" PARTLY true "a rolling restart stopped on its way"
        "An instance did not come back, and the others were left as they were. The steps of the operation say which were restarted: `hactl op show ID`; go on with `hactl db restart --rolling --pending`."
    NO_POSTGRES "HA0421" FAILED false "PostgreSQL is not installed on the node"
        "The programs of the group's major release were not found where the node's had.toml says, nor in the usual places. Install the package (Debian: postgresql-15)."
    NOT_REPORTING "HA0422" REFUSED true "the instance does not report"
        "Its node is offline or suspect, or its daemon cannot reach the server. `hactl node show NODE` and `hactl db status` say since when."
    GROUP_IN_USE "HA0423" REFUSED false "the database group is in use"
        "Removing a group ends its databases. Give --confirm with its name once more; its data directories stay unless --delete-data is given."
    DIVERGED "HA0424" REFUSED false "the data directories do not descend from one another"
        "More than one instance has data and none has all of it. Say whose is to be kept: `hactl db assign NODE --role primary`. The other directories are kept aside."
    INSTANCE_FAILED "HA0425" FAILED true "PostgreSQL does not start or does not follow"
        "The message has the server's own last words. `hactl db status` shows the state, and the node's log (journalctl -u 'had-guard@*') the rest; `hactl db reinit NODE` copies a standby afresh."
    PARAMETER_REFUSED "HA0426" USAGE false "PostgreSQL does not take the value"
        "The server checked the value against its own catalogue of settings: the name is unknown, or the value is out of its range. Nothing was changed."
    NO_DATABASES "HA0427" NOT_FOUND false "the cluster has no database group"
        "`hactl db create NAME --node N1 --node N2 --node N3` makes one."
    PORT_TAKEN "HA0428" REFUSED false "the port is another's"
        "Each group has two ports of its own on the proxy of every node, and each instance one on its node. Give another one: `hactl db config set proxy.port=PORT proxy.standbyPort=PORT`, or `hactl db create NAME --port PORT`."
    OP_UNKNOWN "HA0501" NOT_FOUND false "there is no operation of this id"
        "`hactl op list` shows the operations that are kept."
    OP_FINISHED "HA0502" REFUSED false "the operation has finished"
        "A finished operation cannot be cancelled."
    OP_FAILED "HA0503" FAILED false "the operation failed"
        "Its steps say how far it came: `hactl op show ID`."
    OP_CANCELLED "HA0504" FAILED false "the operation was cancelled"
        "Somebody ended it with `hactl op cancel`."
    WAIT_FAILED "HA0505" FAILED false "the object reached a state that was to fail the wait"
        "`--fail-on` named the state that was reached."
    UNHEALTHY "HA0701" UNHEALTHY false "the cluster is not healthy"
        "`hactl cluster status` lists what is wrong, `hactl cluster doctor` looks deeper."
    COMPLAINTS "HA0702" UNHEALTHY false "the doctor found something wrong"
        "Each finding is printed with what to do about it."
    BAD_CONFIG "HA0801" FAILED false "had.toml is wrong"
        "The message names the key and what it takes. /usr/share/doc/had/had.toml explains every key."
    WRONG_SECRET "HA0802" FAILED false "the cluster secret does not open the cluster's root"
        "ZooKeeper holds a cluster of this name whose entries were written with another secret. The bundle belongs to another cluster of the same name, or is older than the cluster. Write a new one: `hactl node add`."
    OTHER_CLUSTER "HA0803" FAILED false "the bundle belongs to another cluster"
        "The cluster id stored in ZooKeeper is not the one in the bundle. Check the ZooKeeper servers in the bundle and the cluster's name."
    NOT_INITIALISED "HA0804" FAILED true "the cluster's root does not exist in ZooKeeper"
        "The first node's bundle, written by `hactl cluster init`, creates it. Start that node first. If the cluster existed before, ZooKeeper lost its data or another ensemble answers."
    SESSION_TIMEOUT "HA0805" FAILED false "ZooKeeper does not grant the session timeout"
        "Leases are reckoned from the session timeout, so every server must grant exactly the one that was asked for. Set minSessionTimeout and maxSessionTimeout (or tickTime) in zoo.cfg on the server that the message names."
    PORT_IN_USE "HA0806" FAILED false "an address cannot be bound"
        "Another process listens there, or the address is not this machine's. Another had with the same configuration may be running."
    STATE_LOCKED "HA0807" FAILED false "another had uses this state directory"
        "One daemon a state directory. Stop the other one first."
    STATE_UNWRITABLE "HA0808" FAILED false "the state directory cannot be written"
        "The disk is full, or the directory's permissions are wrong. had goes on with what it has, and raises an alert."
    ZOOKEEPER_UNREACHABLE "HA0809" FAILED true "no ZooKeeper server can be reached"
        "The message lists the servers with the reason of each. had keeps trying."
    BAD_STORED "HA0810" FAILED false "a stored value cannot be read"
        "Something other than had wrote to the cluster's tree, or a newer version did. The value is left as it is and the object is shown as damaged; nothing else is disturbed."
    NO_CONTROL "HA0811" FAILED false "the local daemon cannot be reached"
        "`had leave` calls the daemon of this machine with the node's own certificate. Is the daemon running, and is the bundle the same?"
    PLAYGROUND_EXISTS "HA0901" REFUSED false "a playground runs there already"
        "`hactl playground status` shows it, `hactl playground down` ends it."
    PLAYGROUND_NONE "HA0902" NOT_FOUND false "there is no playground there"
        "`hactl playground up` starts one."
    PLAYGROUND_NEEDS "HA0903" FAILED false "something the playground needs is not installed"
        "The playground starts a real ZooKeeper: it needs Java and zookeeper.jar (Debian: apt-get install zookeeper default-jre-headless)."
    PLAYGROUND_FAILED "HA0904" FAILED false "the playground did not become healthy"
        "The logs are in the playground's directory; the message quotes the last lines."
}

/// The code with this id, in any case.
pub fn find(id: &str) -> Option<&'static Code> {
    ALL.iter().find(|c| c.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ordered() {
        assert!(ALL.windows(2).all(|w| w[0].id < w[1].id));
    }
}
