import Hummingbird

extension WebPage {
    /// `GET /`: the chat page.
    /// - Parameter requiresKey: whether the page asks a visitor for an API key before it connects.
    static func chat(requiresKey: Bool) -> WebPage {
        let document = String(decoding: PackageResources.chat_html, as: UTF8.self)
        return WebPage(
            document: document.replacing(#"data-requires-key="true""#, with: #"data-requires-key="\#(requiresKey)""#),
            styleSheet: Asset("chat.css", PackageResources.chat_css),
            scripts: [
                Asset("chat-client.js", PackageResources.chat_client_js), Asset("chat-page.js", PackageResources.chat_page_js),
            ])
    }

    /// `GET /dashboard`: the operator's dashboard. The document holds no facts about the deployment; its script fetches them with the
    /// operator's key.
    static func dashboard() -> WebPage {
        WebPage(
            document: String(decoding: PackageResources.dashboard_html, as: UTF8.self),
            styleSheet: Asset("dashboard.css", PackageResources.dashboard_css),
            scripts: [
                Asset("dashboard-elements.js", PackageResources.dashboard_elements_js),
                Asset("dashboard-chart.js", PackageResources.dashboard_chart_js), Asset("dashboard.js", PackageResources.dashboard_js),
            ])
    }
}
