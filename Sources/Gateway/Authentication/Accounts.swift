/// The accounts of `SLUICE_ACCOUNTS_FILE`.
struct Accounts: Sendable {
    private struct Account: Sendable {
        let tenant: Tenant
        let hash: PasswordHash
    }

    private let accounts: [String: Account]
    private let mostExpensive: PasswordHash

    /// - Throws: `invalidAccounts` with the number of the line.
    init(parsing text: String, setting: String) throws(AuthenticationError) {
        var accounts: [String: Account] = [:]
        for line in SettingFile.lines(text) {
            let fields = line.text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count >= 2, let hashed = fields.last, !fields[fields.count - 2].isEmpty,
                let tenant = Tenant(checking: String(fields[0]))
            else {
                throw AuthenticationError(.invalidAccounts, "\(setting): line \(line.number) is not tenant:account:hash or account:hash")
            }
            guard let hash = PasswordHash(hashed) else {
                throw AuthenticationError(
                    .invalidAccounts,
                    "\(setting): the hash in line \(line.number) is not usable: use bcrypt ($2b$12$…, cost \(BcryptHash.costs.lowerBound) to "
                        + "\(BcryptHash.costs.upperBound)) or $scrypt$ln=15,r=8,p=1$salt$hash")
            }
            let name = String(fields[fields.count - 2])
            guard accounts.updateValue(Account(tenant: tenant, hash: hash), forKey: name) == nil else {
                throw AuthenticationError(.invalidAccounts, "\(setting): the account in line \(line.number) is defined twice")
            }
        }
        guard let mostExpensive = accounts.values.map(\.hash).max(by: { $0.cost < $1.cost }) else {
            throw AuthenticationError(.invalidAccounts, "\(setting) holds no account")
        }
        self.accounts = accounts
        self.mostExpensive = mostExpensive
    }

    func tenant(of name: String) -> Tenant? { accounts[name]?.tenant }

    /// What is computed for a password of this name: the account's hash, and the most expensive one of all unless it costs about as much.
    /// A name without an account costs the most expensive hash, so that the time does not say which names exist.
    func hashes(for name: String) -> [PasswordHash] {
        guard let own = accounts[name]?.hash else { return [mostExpensive] }
        return own.cost * 2 > mostExpensive.cost ? [own] : [own, mostExpensive]
    }
}
