import JSONCodec

/// The wish that a job ends: the durable key's value and the cancel channel's message, `{"id":"…","reason":"…"}`.
package struct Interrupt: Sendable, Hashable {
    package static let maximumReasonLength = NameLimit.reason

    package let id: JobID
    package let reason: String

    /// - Parameter reason: one that is none (`isReason`) counts as USER_STOP: the intent to stop is more than its reason.
    package init(id: JobID, reason: String) {
        self.id = id
        self.reason = Self.isReason(reason) ? reason : InterruptReason.userStop
    }

    /// Whether a text is 1 to 64 of `A-Z a-z 0-9 _ . -`.
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

    /// Nil for anything that is not such an object; a reason that is missing or none (`isReason`) counts as USER_STOP.
    package init?(parsing bytes: some Sequence<UInt8>) {
        guard let json = try? JSON(parsing: bytes, maximumDepth: 4), let id = json["id"]?.string.flatMap(JobID.init) else { return nil }
        switch json["reason"] {
        case nil: self.init(id: id, reason: InterruptReason.userStop)
        case .string(let reason): self.init(id: id, reason: reason)
        default: return nil
        }
    }

    package var text: String {
        let json: JSON = ["id": .string(id.rawValue), "reason": .string(reason)]
        return json.text
    }
}

/// The reasons that this product gives by itself; clients may send others of the contract's.
package enum InterruptReason {
    package static let userStop = "USER_STOP"
    package static let userNewInput = "USER_NEW_INPUT"
    package static let clientError = "CLIENT_ERROR"
    package static let clientGone = "CLIENT_GONE"
}

/// Where a job stood when its interrupt was seen.
package enum Phase: String, Sendable, CaseIterable {
    case queued, claimed, connecting, waiting, streaming, speaking, backoff
}
