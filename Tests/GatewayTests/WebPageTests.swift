import Crypto
import Foundation
import NIOCore
import TestSupport
import Testing

@testable import Gateway

@Suite struct WebPageTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "../../Sources/Gateway/Web/Assets").standardized

    private static func asset(_ name: String) throws -> String { try String(contentsOf: folder.appending(path: name), encoding: .utf8) }

    private static let scripts = [
        "chat-audio.js", "chat-client.js", "chat-composer.js", "chat-page.js", "chat-storage.js", "chat-voice.js", "dashboard-chart.js",
        "dashboard-elements.js", "dashboard-tables.js", "dashboard.js",
    ]

    private static func sourceExpression(_ text: String) -> String {
        "'sha256-\(Data(SHA256.hash(data: Data(text.utf8))).base64EncodedString())'"
    }

    /// Each page: its document, its style sheet and its scripts, in order.
    private static let pages: [(WebPage, String, [String])] = [
        (
            .chat(requiresKey: true, recognizes: true), "chat.css",
            ["chat-client.js", "chat-audio.js", "chat-voice.js", "chat-storage.js", "chat-composer.js", "chat-page.js"]
        ),
        (.dashboard(), "dashboard.css", ["dashboard-elements.js", "dashboard-chart.js", "dashboard-tables.js", "dashboard.js"]),
    ]

    @Test func `a page contains its files and its policy allows nothing else`() throws {
        for (page, styleSheet, scripts) in Self.pages {
            let document = String(buffer: page.document)
            let style = try Self.asset(styleSheet)
            #expect(document.components(separatedBy: "<style>\(style)</style>").count == 2)
            let texts = try scripts.map(Self.asset)
            for text in texts { #expect(document.components(separatedBy: "<script>\(text)</script>").count == 2) }
            let policy = [
                // The chat page makes the module of its audio worklet.
                "default-src 'none'",
                "script-src \(texts.map(Self.sourceExpression).joined(separator: " "))\(styleSheet == "chat.css" ? " blob:" : "")",
                "style-src \(Self.sourceExpression(style))", "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'",
                "frame-ancestors 'none'",
            ]
            #expect(page.policy == policy.joined(separator: "; "))
            // One request per visit: no other file, and no address but the icon's namespace.
            for reference in [" src=", "stylesheet", "https://", "@import", "url("] {
                #expect(!document.contains(reference), "\(styleSheet): \(reference)")
            }
        }
    }

    @Test func `only a gateway with keys asks for one, and only one with recognition offers to talk`() {
        for requiresKey in [true, false] {
            let document = String(buffer: WebPage.chat(requiresKey: requiresKey, recognizes: !requiresKey).document)
            #expect(document.contains("<body data-requires-key=\"\(requiresKey)\" data-recognizes=\"\(!requiresKey)\">"))
        }
    }

    @Test func `the list of scripts is complete`() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
        #expect(files.filter { $0.hasSuffix(".js") }.sorted() == Self.scripts)
    }

    /// Text from outside gets into a page by text nodes only. A closing tag would end the inlined element.
    @Test(arguments: scripts) func `scripts add no markup to their page`(script: String) throws {
        let text = try Self.asset(script)
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "</script"] {
            #expect(!text.contains(forbidden), "\(forbidden)")
        }
    }

    /// The resampling of the microphone and the detection of speech.
    @Test(.needs(.node)) func `the page's sound processing`() async throws {
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../JourneyTests/Scripts/chat_audio.js")
            .standardized.path
        let outcome = try await Program.run(TestProgram.node.require(), [script, Self.folder.appending(path: "chat-audio.js").path])
        #expect(outcome.succeeded && outcome.output.contains("all checks passed"), "\(outcome.output)")
    }

    @Test(.needs(.node), arguments: scripts) func `node accepts the script`(script: String) async throws {
        let path = Self.folder.appending(path: script).path
        let outcome = try await Program.run(TestProgram.node.require(), ["--check", path])
        #expect(outcome.succeeded, "\(outcome.output)")
    }
}
