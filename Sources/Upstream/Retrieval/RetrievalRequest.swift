import Contract
import CurlTransport
import JSONCodec
import Support

/// The retrieval upstream as the operator configured it.
package struct RetrievalConfiguration: Sendable, Hashable {
    /// Base URL, with or without a trailing slash (`SLUICE_RETRIEVAL_URL`).
    package var url: String
    /// Sent as `X-API-Key`; nil for an upstream without authentication.
    package var key: String?
    /// Maximum documents.
    package var topK = 3
    /// Minimum similarity, 0 to 1.
    package var threshold = 0.5
    /// Maximum time of a retrieval; the job goes on without it then.
    package var timeout: Duration = .seconds(3)

    package init(url: String, key: String?) {
        self.url = url
        self.key = key
    }

    /// The same upstream as an `UpstreamConfiguration`, for the code that both share: URLs, keys and errors.
    var upstream: UpstreamConfiguration { UpstreamConfiguration(name: "retrieval", kind: .openai, url: url, key: key) }
}

/// A semantic search for the documents that a user's message is about.
package struct RetrievalRequest: Sendable {
    package var jobID: JobID
    package var query: String
    /// W3C Trace Context header of the job, unvalidated.
    package var traceparent: String?

    package init(jobID: JobID, query: String, traceparent: String?) {
        self.jobID = jobID
        self.query = query
        self.traceparent = traceparent
    }

    /// - Throws: `authentication` if the key is not a valid header value.
    func exchange(on retrieval: RetrievalConfiguration) throws(Failure) -> HTTPRequest {
        var headers = RequestRules.headers(of: jobID, traceparent: traceparent)
        if let key = try RequestRules.key(of: retrieval.upstream) { headers.append("X-API-Key: \(key)") }
        let body: JSON = [
            "query": .string(query), "top_k": .integer(retrieval.topK), "threshold": .number("\(retrieval.threshold)"),
        ]
        return HTTPRequest(url: RequestRules.url(retrieval.upstream, "/search/retrieve"), headers: headers, body: body.bytes)
    }
}

/// The documents that a retrieval found.
package struct Artifacts: Sendable, Equatable {
    /// Maximum bytes of the documents in a prompt; further ones are left out.
    private static let maximumBytes = 64 << 10

    /// The documents as text for a prompt; empty when there are none.
    package private(set) var text = ""
    /// Number of documents in `text`.
    package private(set) var count = 0

    /// Reads `artifacts` of a response.
    /// - Throws: `upstream_protocol` for a response without them, or the failure that the service reported.
    package init(_ body: [UInt8]) throws(Failure) {
        let json: JSON
        do { json = try JSON(upstream: body) } catch {
            throw Failure(.upstreamProtocol, "the retrieval upstream's response is not JSON: \(error)")
        }
        guard let list = json["artifacts"]?.array else {
            if let error = ProviderError(document: json) { throw error.failureInsideStream(kind: nil) }
            throw Failure(.upstreamProtocol, "the retrieval upstream's response has no \"artifacts\"")
        }
        for artifact in list {
            let title = artifact["title"]?.string ?? ""
            let content = artifact["content"]?.string ?? ""
            guard !content.isEmpty, text.utf8.count + title.utf8.count + content.utf8.count <= Self.maximumBytes else { continue }
            text += title.isEmpty ? "\(content)\n\n" : "\(title)\n\(content)\n\n"
            count += 1
        }
    }
}
