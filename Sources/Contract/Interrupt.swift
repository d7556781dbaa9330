import JSONCodec

/// A request to stop a job: the value of the interrupt key and the message on the cancel channel, `{"id":"…","reason":"…"}`.
package struct Interrupt: Sendable, Hashable {
    package static let maximumReasonLength = NameLimit.reason

    package let id: JobID
    package let reason: String

    /// - Parameter reason: an invalid reason (see `isReason`) becomes USER_STOP, because the job must stop in any case.
    package init(id: JobID, reason: String) {
        self.id = id
        self.reason = Self.isReason(reason) ? reason : InterruptReason.userStop
    }

    /// Whether a text is a valid reason: 1 to 64 characters of `A-Z a-z 0-9 _ . -`.
    package static func isReason(_ text: String) -> Bool {
        (1...maximumReasonLength).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }

    /// Nil unless the bytes are a JSON object with a valid id. A missing or invalid reason (see `isReason`) becomes USER_STOP.
    package init?(parsing bytes: Span<UInt8>) {
        var scanner = JSONScanner(bytes, maximumDepth: 4)
        var id: JobID?
        var reason = InterruptReason.userStop
        do throws(JSONError) {
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "id": id = JobID(try scanner.string())
                case "reason": reason = try scanner.string()
                default: try scanner.skip()
                }
            }
            try scanner.finish()
        } catch { return nil }
        guard let id else { return nil }
        self.init(id: id, reason: reason)
    }

    /// The same for a sequence of bytes, which is copied.
    package init?(parsing bytes: some Sequence<UInt8>) { self.init(parsing: Array(bytes).span) }

    package var text: String {
        let json: JSON = ["id": .string(id.rawValue), "reason": .string(reason)]
        return json.text
    }
}

/// The interrupt reasons that gateways set themselves. Clients may send other valid ones.
package enum InterruptReason {
    package static let userStop = "USER_STOP"
    package static let userNewInput = "USER_NEW_INPUT"
    package static let clientError = "CLIENT_ERROR"
    package static let clientGone = "CLIENT_GONE"
}

/// The phase of a job when its interrupt was received.
package enum Phase: String, Sendable, CaseIterable {
    case queued, claimed, recognizing, retrieving, connecting, waiting, streaming, speaking, backoff
}
