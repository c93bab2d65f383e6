//! The ports that groups and daemons have, and those that a new group's proxies get.

use ha_core::database::GroupSpec;
use ha_core::database::ports::{self, Listener};
use ha_core::refusal::Refusal;
use ha_proto::v1;

use super::super::Master;

impl Master<'_> {
    /// Refuses ports that somebody else has.
    pub(super) fn check_ports(&self, name: &str, spec: &GroupSpec) -> Result<(), Refusal> {
        ports::check(&self.listens(name, spec), &self.others_listen(name))
    }

    /// Gives a new group the ports of the proxies that were not asked for.
    pub(super) fn choose_ports(&self, name: &str, asked: Option<v1::GroupProxy>, spec: &mut GroupSpec) {
        let asked = asked.unwrap_or_default();
        let mut others = self.others_listen(name);
        others.extend(self.listens(name, spec).into_iter().filter(|l| l.node.is_some()));
        ports::choose(
            &mut spec.proxy,
            asked.port.is_none(),
            asked.standby_port.is_none(),
            &others,
        );
    }

    fn listens(&self, name: &str, spec: &GroupSpec) -> Vec<Listener> {
        let record = self.store.groups.get(name).map(super::StoredGroup::record);
        let mut nodes: std::collections::BTreeSet<&String> = spec.nodes.keys().collect();
        nodes.extend(record.iter().flat_map(|r| r.instances.keys()));
        ports::listeners(name, spec, nodes)
    }

    /// Everybody else: other groups, and the daemons.
    fn others_listen(&self, name: &str) -> Vec<Listener> {
        let groups = self.store.groups.iter().filter(|(other, _)| *other != name);
        let of = groups.filter_map(|(other, stored)| Some(self.listens(other, stored.live()?)));
        let mut all: Vec<Listener> = of.flatten().collect();
        for (node, record) in self.records().into_iter().filter(|(_, r)| !r.removed) {
            let report = self.members.get(node).and_then(|m| m.report.as_ref());
            let http = report.map_or("", |r| r.http_address.as_str());
            let addresses = [record.spec.address.as_str(), http].into_iter();
            let numbers = addresses.filter_map(|a| a.rsplit_once(':')?.1.parse().ok());
            all.extend(numbers.map(|port| Listener {
                port,
                node: Some(node.to_owned()),
                who: "had".to_owned(),
            }));
        }
        all
    }
}
