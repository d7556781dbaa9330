import Contract
import Foundation
import Testing

@testable import CurlTransport
@testable import Upstream

/// Servers and proxies that compress their answers although the request does not accept it.
@Suite(.timeLimit(.minutes(10)))
struct CompressedAnswerTests {
    /// `EngineScript.token + finish + done`.
    private static let gzip =
        "H4sIAAAAAAACA43MMQqDQBAF0H5PEX5tkXpqA1bJAURkcUdcGGaCO4Ige3dTCjapH7wUPdLjwLRYnriA+gNZE++gZ4PE4hH0Y1NndRA6FjHUBnPWXJZx5VhMQbqJ1KGG"
        + "kP4a7wGK2xeXom8/79cQwgktk7QsowAAAA=="
    private static let deflate =
        "eNqNzDEKg0AQBdB+TxF+bZF6agNWyQFEZHFHXBhmgjuCIHt3Uwo2qR+8FD3S48C0WJ64gPoDWRPvoGeDxOIR9GNTZ3UQOhYx1AZz1lyWceVYTEG6idShhpD+Gu8BitsX"
        + "l6JvP+/XEMIJv4g2fQ=="
    private static let brotli =
        "IAoQZGF0YTogeyJjaG9pY2VzIjpbeyJpbmRleCI6MCwiZGVsdGEiOnsiY29udGVudCI6IkhlbGxvIn0sImZpbmlzaF9yZWFzb24iOm51bGx9XX0KCmRhdGE6IHsiY2hvaWNl"
        + "cyI6W3siaW5kZXgiOjAsImRlbHRhIjp7fSwiZmluaXNoX3JlYXNvbiI6InN0b3AifV19CgpkYXRhOiBbRE9ORV0KCgM="

    @Test(arguments: [("gzip", gzip), ("deflate", deflate), ("br", brotli)])
    func `a compressed answer is decoded`(_ coding: String, _ text: String) async throws {
        let body = [UInt8](try #require(Data(base64Encoded: text)))
        let recording = try await EngineScript.ask { exchange in
            #expect(exchange.head.contains("Accept-Encoding: identity"))
            exchange.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: \(coding)\r\nContent-Length: \(body.count)\r\n\r\n"
            )
            exchange.send(Array(body[..<50]))
            exchange.send(Array(body[50...]))
        }
        #expect(recording.result == .complete && recording.outputs == [.text("Hello"), .finished(.stop)])
    }

    @Test func `an answer in an unknown coding fails`() async throws {
        let recording = try await EngineScript.ask { exchange in
            exchange.answer("200 OK", "Content-Encoding: rot13\r\n", EngineScript.token, type: "text/event-stream")
        }
        #expect(recording.failure?.failure.code == .upstreamProtocol && recording.outputs.isEmpty)
    }
}
