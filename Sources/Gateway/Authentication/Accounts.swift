import NIOConcurrencyHelpers
import NIOPosix

/// The accounts of `SLUICE_ACCOUNTS_FILE`. Passwords are verified on two threads of their own.
final class Accounts: Sendable {
    private struct Account: Sendable {
        let tenant: Tenant
        let hash: PasswordHash
    }

    /// Verifications that may run and wait for the threads, so that passwords cannot pile up work without end: half a REGISTER's time for
    /// hashes that take 150 ms.
    static let maximumWaiting = 64

    private let accounts: [String: Account]
    /// Verified for a name that is not there, so that the time does not say which names are.
    private let stranger: Account?
    private let threads = NIOThreadPool(numberOfThreads: 2)
    private let waiting = NIOLockedValueBox(0)

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
                throw AuthenticationError(.invalidAccounts, "\(setting): the account in line \(line.number) stands there twice")
            }
        }
        guard !accounts.isEmpty else { throw AuthenticationError(.invalidAccounts, "\(setting) holds no account") }
        self.accounts = accounts
        stranger = accounts.values.first
        threads.start()
    }

    deinit {
        threads.shutdownGracefully { _ in }
    }

    func verdict(account name: String, password: String) async -> Authenticator.Verdict {
        let known = accounts[name]
        guard let account = known ?? stranger else { return .refused }
        guard enter() else { return .busy }
        defer { waiting.withLockedValue { $0 -= 1 } }
        let hash = account.hash
        let matches = (try? await threads.runIfActive { hash.matches(password) }) ?? false
        return matches ? known.map { .tenant($0.tenant) } ?? .refused : .refused
    }

    private func enter() -> Bool {
        waiting.withLockedValue { waiting in
            guard waiting < Self.maximumWaiting else { return false }
            waiting += 1
            return true
        }
    }
}
