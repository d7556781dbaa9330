import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// A page of the gateway: one HTML document with its style sheet and scripts inlined, so that a visit is one request.
///
/// The Content-Security-Policy names each inlined style sheet and script by its hash. Nothing else that gets into the page, such as a model's
/// output, can run.
struct WebPage: Sendable {
    /// A file that a page's document refers to by name.
    struct Asset {
        var name: String
        var text: String

        init(_ name: String, _ bytes: [UInt8]) {
            self.name = name
            text = String(decoding: bytes, as: UTF8.self)
        }

        /// The source expression that allows exactly this text (Content Security Policy 3, 2.3.1).
        fileprivate var sourceExpression: String {
            "'sha256-" + Data(SHA256.hash(data: Array(text.utf8))).base64EncodedString() + "'"
        }
    }

    let document: ByteBuffer
    /// The value of the Content-Security-Policy field.
    let policy: String

    /// - Parameters:
    ///   - document: HTML that loads each of the assets with `<link rel="stylesheet" href="name">` or `<script src="name"></script>`; those
    ///     elements are replaced by `<style>` and `<script>` elements with the asset's text.
    ///   - hasWorklet: whether the scripts start an audio worklet, whose module they make of their own text. Its `blob:` address is known to
    ///     them only.
    init(document: String, styleSheet: Asset, scripts: [Asset], hasWorklet: Bool = false) {
        var document = document.replacing(
            #"<link rel="stylesheet" href="\#(styleSheet.name)">"#, with: "<style>\(styleSheet.text)</style>")
        for script in scripts {
            document = document.replacing(#"<script src="\#(script.name)"></script>"#, with: "<script>\(script.text)</script>")
        }
        self.document = ByteBuffer(string: document)
        policy = [
            "default-src 'none'", "script-src \(scripts.map(\.sourceExpression).joined(separator: " "))\(hasWorklet ? " blob:" : "")",
            "style-src \(styleSheet.sourceExpression)", "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'",
            "frame-ancestors 'none'",
        ].joined(separator: "; ")
    }

    var response: Response {
        Response(
            status: .ok,
            headers: [
                .contentType: "text/html; charset=utf-8", .cacheControl: "no-cache", .contentSecurityPolicy: policy,
                .xContentTypeOptions: "nosniff", .referrerPolicy: "no-referrer",
            ], body: ResponseBody(byteBuffer: document))
    }
}

extension HTTPField.Name {
    fileprivate static let referrerPolicy = HTTPField.Name("Referrer-Policy")!
}

extension WebPage {
    /// `GET /`: the chat page.
    /// - Parameters:
    ///   - requiresKey: whether the page asks a visitor for an API key before it connects.
    ///   - recognizes: whether the page offers to talk.
    static func chat(requiresKey: Bool, recognizes: Bool) -> WebPage {
        let document = String(decoding: PackageResources.chat_html, as: UTF8.self)
        return WebPage(
            document: document.replacing(#"data-requires-key="true""#, with: #"data-requires-key="\#(requiresKey)""#)
                .replacing(#"data-recognizes="true""#, with: #"data-recognizes="\#(recognizes)""#),
            styleSheet: Asset("chat.css", PackageResources.chat_css),
            scripts: [
                Asset("chat-client.js", PackageResources.chat_client_js), Asset("chat-audio.js", PackageResources.chat_audio_js),
                Asset("chat-voice.js", PackageResources.chat_voice_js), Asset("chat-storage.js", PackageResources.chat_storage_js),
                Asset("chat-composer.js", PackageResources.chat_composer_js), Asset("chat-page.js", PackageResources.chat_page_js),
            ], hasWorklet: true)
    }

    /// `GET /dashboard`: the operator's dashboard. The document holds no facts about the deployment; its script fetches them with the
    /// operator's key.
    static func dashboard() -> WebPage {
        WebPage(
            document: String(decoding: PackageResources.dashboard_html, as: UTF8.self),
            styleSheet: Asset("dashboard.css", PackageResources.dashboard_css),
            scripts: [
                Asset("dashboard-elements.js", PackageResources.dashboard_elements_js),
                Asset("dashboard-chart.js", PackageResources.dashboard_chart_js),
                Asset("dashboard-tables.js", PackageResources.dashboard_tables_js), Asset("dashboard.js", PackageResources.dashboard_js),
            ])
    }
}
