import Foundation
import TestSupport
import Testing

@testable import Gateway

@Suite struct PasswordQueueTests {
    private func drained(_ queue: PasswordQueue<String>) -> [String] {
        var queue = queue
        var order: [String] = []
        while let check = queue.next() { order.append(check) }
        return order
    }

    @Test func `addresses take turns, and accounts within an address`() {
        var queue = PasswordQueue<String>()
        for number in 1...4 { #expect(queue.add("flood\(number)", address: "1", account: "ann") == nil) }
        #expect(queue.add("other account", address: "1", account: "bob") == nil)
        #expect(queue.add("other address", address: "2", account: "ann") == nil)
        #expect(drained(queue) == ["flood1", "other address", "other account", "flood2", "flood3", "flood4"])
    }

    @Test func `a full address drops a check of its account with the most checks`() {
        var queue = PasswordQueue<String>()
        #expect(queue.add("right", address: "1", account: "bob") == nil)
        for number in 2...PasswordQueue<String>.maximumPerAddress {
            #expect(queue.add("flood\(number)", address: "1", account: "ann") == nil)
        }
        for _ in 0..<1_000 { #expect(queue.add("more", address: "1", account: "ann").map { $0 != "right" } == true) }
        #expect(queue.count == PasswordQueue<String>.maximumPerAddress)
        #expect(drained(queue).prefix(2).contains("right"))
    }

    @Test func `a full queue drops a check of the address with the most checks`() {
        var queue = PasswordQueue<Int>()
        for number in 0..<PasswordQueue<Int>.maximum {
            #expect(queue.add(1, address: "\(number % 8)", account: "ann") == nil)
        }
        for number in 0..<100 { #expect(queue.add(2, address: "new\(number)", account: "ann") == 1) }
        #expect(queue.count == PasswordQueue<Int>.maximum)
    }
}

@Suite struct FailedLoginTests {
    @Test func `delays grow with refusals and decrease with time`() {
        var failures = FailedLogins()
        let delays = (1...18).map { _ in failures.add(address: "10.0.0.1", now: 1_000).delay }
        #expect(delays == Array(repeating: 0, count: FailedLogins.tolerated) + [250, 500, 1_000, 2_000, 4_000, 4_000, 4_000, 4_000])
        #expect(failures.add(address: "10.0.0.2", now: 1_000).delay == 0, "another address is not delayed")
        let later = 1_000 + 18 * FailedLogins.forgottenEvery
        #expect(failures.add(address: "10.0.0.1", now: later).delay == 0)
    }

    @Test func `IPv6 addresses of one network count as one`() {
        var failures = FailedLogins()
        for number in 0..<FailedLogins.tolerated { _ = failures.add(address: "2001:db8:0:1::\(number)", now: 0) }
        #expect(failures.add(address: "2001:db8:0:1:1:2:3:4", now: 0).delay > 0)
        #expect(failures.add(address: "2001:db8:0:2::1", now: 0).delay == 0)
        for number in 0..<FailedLogins.tolerated { _ = failures.add(address: "::ffff:10.0.0.\(number)", now: 0) }
        #expect(failures.add(address: "::ffff:10.0.0.99", now: 0).delay == 0, "IPv4-mapped addresses are counted separately")
    }

    @Test func `stored addresses and log lines are limited`() {
        var failures = FailedLogins()
        for _ in 0..<20 { _ = failures.add(address: "guesser", now: 0) }
        var logged = 0
        for number in 0..<(3 * FailedLogins.maximumAddresses) {
            if failures.add(address: "a\(number)", now: 0).isLogged { logged += 1 }
        }
        #expect(failures.count <= FailedLogins.maximumAddresses && logged == 0)
        #expect(failures.add(address: "guesser", now: 0).delay == FailedLogins.maximumDelay, "addresses with the most refusals are kept")
        let next = failures.add(address: "b", now: 60_000)
        #expect(next.isLogged && next.unlogged == 3 * FailedLogins.maximumAddresses + 1)
    }
}

@Suite(.serialized, .cpuBound)
struct PasswordVerificationTests {
    /// The bcrypt hashes of "U*U" at cost 5 and of another password at cost 8.
    private static let cheap = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
    private static let expensive = "$2b$08$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"

    /// 400 wrong passwords, from one address and from many, must not make correct passwords receive "busy".
    @Test(arguments: [true, false])
    func `a flood of wrong passwords does not block correct ones`(isOneAddress: Bool) async throws {
        let accounts = "ann:\(Self.cheap)\n" + (0..<12).map { "user\($0):\(Self.cheap)\n" }.joined()
        try await withFile(accounts) { path in
            let authenticator = try authenticator { $0.accountsFile = path }
            let right = await withTaskGroup(of: Bool.self) { group in
                for number in 0..<400 {
                    group.addTask {
                        _ = await authenticator.verdict(
                            .account("ann", password: "guess \(number)"), from: isOneAddress ? "" : "10.0.0.\(number % 100)")
                        return false
                    }
                }
                for number in 0..<12 {
                    group.addTask {
                        let verdict = await authenticator.verdict(.account("user\(number)", password: "U*U"), from: "")
                        return verdict == .tenant(Tenant(name: "user\(number)"))
                    }
                }
                return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
            }
            #expect(right == 12)
        }
    }

    @Test func `an unknown account costs the most expensive hash`() throws {
        let accounts = try Accounts(parsing: "ann:\(Self.cheap)\nbob:\(Self.expensive)\n", setting: "test")
        let (cheap, expensive) = (try #require(PasswordHash(Self.cheap)), try #require(PasswordHash(Self.expensive)))
        #expect(accounts.hashes(for: "nobody") == [expensive])
        #expect(accounts.hashes(for: "bob") == [expensive])
        #expect(accounts.hashes(for: "ann") == [cheap, expensive])
        #expect(cheap.cost * 8 == expensive.cost)
    }

    @Test func `files are reloaded, and an invalid one changes nothing`() async throws {
        let folder = try TemporaryFolder("reload")
        defer { folder.remove() }
        func write(_ text: String, _ name: String) throws { try Data(text.utf8).write(to: URL(filePath: folder.file(name))) }
        try write("a:0123456789abcdef\n", "keys")
        try write("ann:\(Self.cheap)\n", "accounts")
        let authenticator = try authenticator {
            $0.apiKeysFile = folder.file("keys")
            $0.accountsFile = folder.file("accounts")
        }
        #expect(authenticator.readsFiles)
        try write("a:fedcba9876543210\n", "keys")
        try write("nonsense", "accounts")
        #expect(throws: AuthenticationError.self) { try authenticator.reload() }
        #expect(
            await authenticator.authenticate(.apiKey("0123456789abcdef"))?.name == "a", "the previous credentials stay in use completely")
        try write("bob:\(Self.cheap)\n", "accounts")
        try authenticator.reload()
        #expect(await authenticator.authenticate(.apiKey("0123456789abcdef")) == nil)
        #expect(await authenticator.authenticate(.apiKey("fedcba9876543210"))?.name == "a")
        #expect(await authenticator.authenticate(.account("bob", password: "U*U"))?.name == "bob")
        #expect(await authenticator.authenticate(.account("ann", password: "U*U")) == nil)
    }
}
