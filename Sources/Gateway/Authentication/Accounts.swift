/// The accounts of `SLUICE_ACCOUNTS_FILE`.
struct Accounts: Sendable {
    private struct Account: Sendable {
        let tenant: Tenant
        let hash: PasswordHash
    }

    private let accounts: [String: Account]
    private let mostExpensive: PasswordHash

    /// Parses the file's text.
    /// - Throws: `invalidAccounts` with the number of the invalid line.
    init(parsing text: String, setting: String) throws(AuthenticationError) {
        var accounts: [String: Account] = [:]
        for line in SettingFile.lines(text) {
            let fields = line.text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count >= 2, let hashed = fields.last, !fields[fields.count - 2].isEmpty,
                let tenant = Tenant(checking: String(fields[0]))
            else {
                throw AuthenticationError(
                    .invalidAccounts, "\(setting): line \(line.number) must have the form tenant:account:hash or account:hash")
            }
            guard let hash = PasswordHash(hashed) else {
                throw AuthenticationError(
                    .invalidAccounts,
                    "\(setting): the hash in line \(line.number) is not supported: use bcrypt ($2b$12$…, cost \(BcryptHash.costs.lowerBound) to "
                        + "\(BcryptHash.costs.upperBound)) or $scrypt$ln=15,r=8,p=1$salt$hash")
            }
            let name = String(fields[fields.count - 2])
            guard accounts.updateValue(Account(tenant: tenant, hash: hash), forKey: name) == nil else {
                throw AuthenticationError(.invalidAccounts, "\(setting): the account in line \(line.number) is already defined")
            }
        }
        guard let mostExpensive = accounts.values.map(\.hash).max(by: { $0.cost < $1.cost }) else {
            throw AuthenticationError(.invalidAccounts, "\(setting) contains no account")
        }
        self.accounts = accounts
        self.mostExpensive = mostExpensive
    }

    /// The tenant of an account; nil for an unknown one.
    func tenant(of name: String) -> Tenant? { accounts[name]?.tenant }

    /// The hashes to compute when verifying a password for this name; only the first one decides. The account's hash comes first, followed
    /// by the most expensive hash of the file unless the account's costs at least half as much. An unknown name gets the most expensive
    /// hash, so that the response time does not reveal which names exist.
    func hashes(for name: String) -> [PasswordHash] {
        guard let own = accounts[name]?.hash else { return [mostExpensive] }
        return own.cost * 2 > mostExpensive.cost ? [own] : [own, mostExpensive]
    }
}
