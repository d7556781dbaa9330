import NIOCore

/// Attacks by WebSocket messages.
extension AbuseAttack {
    static let settingsFlood = AbuseAttack(
        name: "settings-flood", summary: "REGISTER with 0.95 MB of settings, then 3,000 small REQUESTs that change one flag of them"
    ) { target in
        let register = largeRegister(target)
        let updates = frames(3_000) { number in
            AbuseMessage.request("u\(number)", text: "", fields: #","update_session":{"requireTTS":\#(number % 2 == 0)}"#)
        }
        return {
            guard let socket = await target.registered(register) else { return }
            for update in updates where await socket.send(update) { target.count() }
        }
    }

    static let listedParameters = AbuseAttack(
        name: "listed-parameters", summary: "a function with 24,000 listed parameters, then small REQUESTs"
    ) { target in
        // Names are three base-62 digits, so that all fit into one message.
        let digits = Array("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        let parameters = (0..<target.size(24_000, quick: 15_000)).map { number in
            #"{"name":"\#(digits[number / 3_844])\#(digits[number / 62 % 62])\#(digits[number % 62])"}"#
        }
        let register = AbuseMessage.register(
            key: AbuseTarget.key,
            fields: #","function_calling":[{"name":"f","parameters":[\#(parameters.joined(separator: ","))]}]"#)
        let requests = frames(target.size(64, quick: 8)) { AbuseMessage.request("r\($0)") }
        return {
            guard let socket = await target.registered(register) else { return }
            for request in requests where await socket.send(request) { target.count() }
        }
    }

    static let continuationFlood = AbuseAttack(
        name: "continuation-flood", summary: "one-byte continuation frames before and after REGISTER; 1 MB messages before REGISTER"
    ) { target in
        let fragments = fragmentedMessage(target.size(200_000, quick: 50_000))
        let large = AbuseMessage.frame(
            AbuseMessage.envelope("REQUEST", #""a":["# + [String](repeating: "0", count: 500_000).joined(separator: ",") + "]"))
        return {
            try await target.inParallel(target.size(60, quick: 16)) { number in
                let isLarge = number % 3 != 0
                let socket = isLarge || number % 2 == 0 ? await target.webSocket() : await target.registered()
                guard let socket else { return }
                if isLarge {
                    for _ in 0..<target.size(20, quick: 2) where await socket.send(large) { target.count() }
                } else {
                    for fragment in fragments where await socket.send(fragment) { target.count() }
                }
            }
        }
    }

    /// A text message of one-byte frames without a final frame.
    private static func fragmentedMessage(_ count: Int) -> [ByteBuffer] {
        var first = ByteBuffer()
        AbuseMessage.append("{".utf8, .text, isFinal: false, to: &first)
        var thousand = ByteBuffer()
        for _ in 0..<1_000 { AbuseMessage.append(" ".utf8, .continuation, isFinal: false, to: &thousand) }
        return [first] + [ByteBuffer](repeating: thousand, count: count / 1_000)
    }

    static let abandonedSessions = AbuseAttack(
        name: "abandoned-sessions", summary: "REGISTER with 0.95 MB of settings, close, again"
    ) { target in
        let register = largeRegister(target)
        return {
            try await target.inParallel(target.size(16, quick: 4)) { _ in
                for _ in 0..<40 where !Task.isCancelled {
                    await target.registered(register)?.close()
                }
            }
        }
    }

    static let unreadWebSocket = AbuseAttack(
        name: "unread-websocket", summary: "streamed answers and RESUME on sockets that are never read"
    ) { target in
        // Many small messages overflow a socket within a few seconds. They occupy neither all slots of the worker (slot-flood does) nor both
        // processors, which the simulator and the worker share with the gateway here.
        let count = target.size(20, quick: 2)
        let model = target.isQuick ? "sim-n2000-g0-b200" : "sim-n200-g20"
        let requests = frames(count) { AbuseMessage.request("r\($0)", model: model) }
        let resumes = frames(count * target.size(30, quick: 10)) { AbuseMessage.envelope("RESUME", #""request_id":"r\#($0 % count)""#) }
        return {
            try await target.inParallel(4) { _ in
                // The end of a socket that is not read is not seen, so sockets are added.
                while !Task.isCancelled {
                    guard let socket = await target.registered(hasSmallBuffer: true) else { return }
                    try await socket.stopReading()
                    for message in requests + resumes where await socket.send(message) { target.count() }
                    try await Task.sleep(for: .seconds(2))
                }
            }
        }
    }

    static let interruptFlood = AbuseAttack(
        name: "interrupt-flood", summary: "REQUEST and INTERRUPT at the highest rate that a socket may send"
    ) { target in
        let model = "sim-n100000-g1000"
        return flood(target) { number in
            number % 20 == 0
                ? AbuseMessage.request("r\(number)", model: model) : AbuseMessage.envelope("INTERRUPT", #""reason":"USER_STOP""#)
        }
    }

    static let sessionQueryFlood = AbuseAttack(
        name: "session-query-flood", summary: "SESSION_QUERY at the highest rate that a socket may send"
    ) { target in
        flood(target) { _ in AbuseMessage.envelope("SESSION_QUERY", #""query_fields":[]"#) }
    }

    /// Floods with four sockets, each just under the default limit of 20,000 messages per second. Quick: two sockets with a tenth of that
    /// rate, since a debug build takes ten times as long for each message.
    private static func flood(_ target: AbuseTarget, _ message: (Int) -> String) -> Run {
        let slice = Duration.milliseconds(50)
        let count = target.size(900, quick: 90)
        let messages = frames(count, message)
        return {
            try await target.inParallel(target.size(4, quick: 2)) { _ in
                while !Task.isCancelled {
                    guard let socket = await target.registered() else { return }
                    var due = ContinuousClock.now
                    while socket.isOpen {
                        for buffer in messages { await socket.send(buffer) }
                        target.count(count)
                        due += slice
                        try await Task.sleep(until: due, clock: .continuous)
                    }
                    target.count(accepted: false)
                }
            }
        }
    }
}
