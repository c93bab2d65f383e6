//! This project: one group of three instances, with its defaults.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::Result;
use ha_proto::v1;
use nix::unistd::Pid;

use super::Managed;
use crate::cluster::{Cluster, Options, Place};
use crate::netns::Network;
use crate::zookeeper::ZkEnsemble;

const POSTGRES: u16 = 5432;
const PROXY: u16 = 5000;
const GROUP: &str = "main";
/// How long a question to the cluster may take before it is taken for unanswered.
const ASK: Duration = Duration::from_secs(2);

pub(super) struct Had {
    cluster: Cluster,
}

impl Had {
    pub(super) async fn start(network: &Network, zookeeper: &ZkEnsemble) -> Result<Had> {
        let place = |i| Place {
            host: network.address(i),
            // Nobody else is there.
            ports: (7400, 7401),
            under: network.under(i),
        };
        let options = Options {
            nodes: usize::from(super::NODES),
            places: (0..super::NODES).map(place).collect(),
            subscribers: false,
            ..Options::default()
        };
        let cluster = Cluster::start_on(options, zookeeper.hosts()).await?;
        let had = Had { cluster };
        let open = |dir: &std::path::Path| std::fs::set_permissions(dir, Permissions::from_mode(0o755));
        open(had.cluster.dir())?;
        for daemon in &had.cluster.daemons {
            open(&daemon.dir)?;
        }
        had.create().await?;
        Ok(had)
    }

    async fn create(&self) -> Result<()> {
        let members = self.cluster.daemons.iter().map(|daemon| v1::InstanceSpec {
            node: daemon.name.clone(),
            role: v1::InstanceRole::Sync.into(),
            port: POSTGRES.into(),
            ..v1::InstanceSpec::default()
        });
        let role = v1::DatabaseRoleSpec {
            name: "app".into(),
            ..v1::DatabaseRoleSpec::default()
        };
        let database = v1::DatabaseSpec {
            name: "app".into(),
            owner: "app".into(),
            ..v1::DatabaseSpec::default()
        };
        let spec = v1::GroupSpec {
            durability: v1::Durability::Quorum.into(),
            members: members.collect(),
            roles: vec![role],
            databases: vec![database],
            // As the peers have it: the measurement is about time.
            hba: vec!["host all all 10.88.0.0/24 trust".into()],
            ..v1::GroupSpec::default()
        };
        let request = v1::CreateGroupRequest {
            name: GROUP.into(),
            spec: Some(spec),
            ..v1::CreateGroupRequest::default()
        };
        self.cluster.admin()?.create_group(request).await?;
        Ok(())
    }

    fn client(&self) -> Result<hactl::client::Client> {
        let bundle = self.cluster.bundle("admin")?;
        self.cluster.client_at(&bundle, self.cluster.endpoints(), ASK)
    }

    async fn group(&self) -> Option<v1::Group> {
        let request = v1::GetGroupRequest { name: GROUP.into() };
        self.client().ok()?.get_group(request).await.ok()
    }
}

fn number(node: &str) -> Option<u8> {
    node.strip_prefix('n')?.parse::<u8>().ok()?.checked_sub(1)
}

fn name(node: u8) -> String {
    format!("n{}", node + 1)
}

#[async_trait::async_trait(?Send)]
impl Managed for Had {
    fn name(&self) -> String {
        "had".to_owned()
    }

    fn hosts(&self) -> Vec<(String, u16)> {
        let host = |d: &crate::cluster::Daemon| d.address.rsplit_once(':').map(|(host, _)| (host.to_owned(), POSTGRES));
        self.cluster.daemons.iter().filter_map(host).collect()
    }

    fn proxies(&self) -> Vec<(String, u16)> {
        self.hosts().into_iter().map(|(host, _)| (host, PROXY)).collect()
    }

    async fn primary(&self) -> Option<u8> {
        number(&self.group().await?.record?.primary)
    }

    async fn whole(&self) -> bool {
        let Some(group) = self.group().await else { return false };
        let record = group.record.unwrap_or_default();
        let count = |state| group.instances.iter().filter(|i| i.state() == state).count();
        let voters = record.rules.last().map_or(0, |r| r.voters.len());
        record.phase() == v1::GroupPhase::Steady
            && record.rules.len() == 1
            && voters == usize::from(super::NODES) - 1
            && count(v1::InstanceState::Streaming) == usize::from(super::NODES) - 1
            && count(v1::InstanceState::Running) == 1
    }

    async fn switchover(&mut self, _: u8, to: u8) -> Result<()> {
        let request = v1::SwitchoverRequest {
            group: GROUP.into(),
            to: name(to),
            ..v1::SwitchoverRequest::default()
        };
        self.client()?.switchover(request).await?;
        Ok(())
    }

    fn daemon(&self, node: u8) -> Option<Pid> {
        let pid = self.cluster.daemons.get(usize::from(node))?.pid()?;
        i32::try_from(pid).ok().map(Pid::from_raw)
    }

    async fn restart(&mut self, node: u8) -> Result<()> {
        self.cluster.node(&name(node)).restart()
    }

    async fn lead_at(&mut self, node: u8) -> Result<bool> {
        self.cluster.lead_at(&name(node)).await?;
        Ok(true)
    }
}
