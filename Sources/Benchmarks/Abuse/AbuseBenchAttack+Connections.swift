import NIOCore

/// Attacks that need no credentials: connections and log-ins.
extension AbuseAttack {
    static let logInFlood = AbuseAttack(
        name: "login-flood", summary: "80 sockets with wrong passwords, half of them for the victim's account",
        probes: AbuseVictim.Probe.allCases
    ) { target in
        {
            try await target.inParallel(80) { number in
                let account = number % 2 == 0 ? AbuseVictim.account : "nobody-\(number)"
                var tries = 0
                while !Task.isCancelled, tries < 500 {
                    guard let socket = await target.webSocket() else {
                        try await Task.sleep(for: .milliseconds(100))
                        continue
                    }
                    // Until the gateway closes this socket.
                    while !Task.isCancelled, tries < 500 {
                        tries += 1
                        let answer = await socket.exchange(
                            AbuseMessage.logIn(account, password: "wrong-\(number)-\(tries)"), for: [#""msg_type":"ERROR""#])
                        target.count(accepted: false)
                        if answer == nil || !socket.isOpen { break }
                    }
                    socket.close()
                }
            }
        }
    }

    static let connectionFlood = AbuseAttack(
        name: "connection-flood", summary: "one address opens as many connections as it can: silent ones and heads that never end",
        timeFactor: 2, descriptors: 1_024
    ) { target in
        {
            let each = target.size(6_400, quick: 1_920) / 64
            try await target.inParallel(64) { _ in
                var open: [AbuseConnection] = []
                var opened = 0
                while !Task.isCancelled {
                    open.removeAll { !$0.isOpen }
                    // Connections that the gateway closed are replaced, up to a limit.
                    while open.count < each, opened < each * 4, !Task.isCancelled {
                        opened += 1
                        guard let connection = await target.connect() else { break }
                        target.count()
                        if opened % 2 == 0 { await connection.send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ") }
                        open.append(connection)
                    }
                    for (number, connection) in open.enumerated() where number % 2 == 1 { await connection.send("x") }
                    try await Task.sleep(for: .milliseconds(500))
                }
            }
        }
    }
}
