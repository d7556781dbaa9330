import Contract

/// Redis keys that only gateways use, in addition to those of the contract.
extension Keys {
    /// Prefix of `busySessions(of:partition:)`; the gateway's name follows.
    func busySessionsPrefix(partition: Int) -> String { "{\(namespace).\(partition)}:sessions:" }
    /// Hash with the number and bytes of an owner's sessions in one partition; see session-quota.lua.
    func sessionQuota(of owner: String, partition: Int) -> String { "{\(namespace).\(partition)}:session-quota:" + owner }
    /// Set of a gateway's sessions with running requests in one partition. Lets other gateways adopt them without scanning all sessions.
    func busySessions(of gateway: String, partition: Int) -> String { busySessionsPrefix(partition: partition) + gateway }
}
