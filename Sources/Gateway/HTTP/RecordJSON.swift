import Contract
import JSONCodec
import JobQueue

extension JobRecord {
    /// Fields that are encoded as numbers.
    private static let numbers: Set<String> = [
        "attempt", "crashes", "submitted_ms", "claimed_ms", "dialled_ms", "first_token_ms", "finished_ms",
    ]
    /// The fields of the contract, in the order of the response.
    private static let order = [
        "state", "owner", "session", "class", "model", "attempt", "crashes", "worker", "gateway", "upstream", "submitted_ms", "claimed_ms",
        "dialled_ms", "first_token_ms", "finished_ms", "reason", "code", "usage", "retry_of",
    ]

    /// The record in the form that clients receive: `usage` is an object, numbers are JSON numbers. Empty fields and fields outside the
    /// contract are omitted.
    func json(id: JobID) -> JSON {
        var object = JSONObject([.init(name: "id", value: .string(id.rawValue))])
        for name in Self.order {
            guard let value = fields[name], !value.isEmpty else { continue }
            if Self.numbers.contains(name) {
                object[name] = Int(value).map { .integer($0) } ?? .string(value)
            } else if name == "usage" {
                object[name] = try? JSON(parsing: value, maximumDepth: 4)
            } else {
                object[name] = .string(value)
            }
        }
        return .object(object)
    }
}
