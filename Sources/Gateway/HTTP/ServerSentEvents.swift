import Contract
import HTTPTypes
import Hummingbird
import NIOCore

/// The text/event-stream format (HTML Living Standard, 9.2).
enum ServerSentEvents {
    /// How long a stream may be silent: proxies give up on one after a minute or so.
    static let heartbeat = TimeAmount.seconds(15)
    static let comment = ByteBuffer(string: ": heartbeat\n\n")

    static let headers: HTTPFields = [
        .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache, no-store", .accelBuffering: "no",
    ]

    /// An event of a job as the contract has it: id, type, JSON.
    static func append(_ event: LoggedEvent, to out: inout [UInt8]) {
        out.append(contentsOf: "id: \(event.id)\nevent: \(event.event.type)\ndata: ".utf8)
        event.append(to: &out)
        out.append(contentsOf: "\n\n".utf8)
    }

    /// JSON holds no line breaks, so one line of data is enough.
    static func appendData(_ json: [UInt8], to out: inout [UInt8]) {
        out.append(contentsOf: "data: ".utf8)
        out.append(contentsOf: json)
        out.append(contentsOf: "\n\n".utf8)
    }
}
