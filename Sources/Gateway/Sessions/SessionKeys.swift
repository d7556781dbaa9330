import Contract

/// Keys of the gateways among themselves, beside the contract's.
extension Keys {
    /// What the name of a gateway is put behind: the set of its sessions with running requests, one a partition, so that nobody has to look
    /// through all sessions when it dies.
    func busySessionsPrefix(partition: Int) -> String { "{\(namespace).\(partition)}:sessions:" }
    /// Hash that counts an owner's sessions and their bytes; see session-quota.lua.
    func sessionQuota(of owner: String, partition: Int) -> String { "{\(namespace).\(partition)}:session-quota:" + owner }
    func busySessions(of gateway: String, partition: Int) -> String { busySessionsPrefix(partition: partition) + gateway }
}
