import Contract
import Crypto
import HTTPTypes
import Hummingbird
import JSONCodec
import Support

/// Parsing and validation of `POST /v1/jobs`.
enum JobSubmission {
    /// Fields that only the gateway sets.
    private static let forbidden = ["id", "owner", "session"]
    /// Maximum length of an `Idempotency-Key`, in bytes.
    static let maximumKeyLength = 255

    /// Parses the body as a job with this id and owner.
    /// - Throws: status 400 with the name of the invalid field.
    static func job(parsing body: [UInt8], id: JobID, owner: String, maximumDepth: Int) throws(HTTPErrorResponse) -> Job {
        let json: JSON
        do { json = try JSON(parsing: body, maximumDepth: maximumDepth) } catch {
            throw HTTPErrorResponse.invalid("the body is not JSON: \(error)")
        }
        guard case .object(var object) = json else { throw HTTPErrorResponse.invalid("the body is not a JSON object") }
        for name in forbidden where object[name] != nil {
            throw HTTPErrorResponse.invalid("\"\(name)\" must not be set; the gateway sets it")
        }
        if let request = object["request"]?.object, let field = ChatCompletionRequest.notCarried(in: request) {
            throw HTTPErrorResponse.notCarried("request.\(field)")
        }
        object["id"] = .string(id.rawValue)
        do {
            var job = try Job(.object(object))
            job.owner = owner
            return job
        } catch {
            throw HTTPErrorResponse.invalid(error.reason)
        }
    }

    /// The `Idempotency-Key` of a request as it is stored, and the partition of its job; nil without the header.
    /// - Throws: 400 for a key of another form.
    static func idempotency(
        _ request: Request, owner: String, partitions: Int
    ) throws(HTTPErrorResponse) -> (key: String, partition: Int)? {
        guard let header = request.headers[.idempotencyKey] else { return nil }
        guard let key = idempotencyKey(header, owner: owner) else {
            throw HTTPErrorResponse.invalid("Idempotency-Key must be 1 to \(maximumKeyLength) printable ASCII characters")
        }
        return (key, partition(owner: owner, key: key, of: partitions))
    }

    /// The key as it is stored, distinct for each tenant.
    ///
    /// Redis stores `<owner>:<key>`, which is ambiguous if an owner contains a colon (a JWT's `sub` may be a URN). The keys of such owners
    /// are prefixed with a control character, which a header cannot contain.
    /// - Returns: nil unless the header is 1 to 255 printable ASCII characters.
    static func idempotencyKey(_ header: String, owner: String) -> String? {
        guard (1...maximumKeyLength).contains(header.utf8.count), header.utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) else { return nil }
        return owner.utf8.contains(UInt8(ascii: ":")) ? "\u{1}" + header : header
    }

    /// The SHA-256 of the body in hexadecimal.
    static func digest(_ body: [UInt8]) -> String { SHA256.hash(data: body).hexadecimal }

    /// The partition of a job with an idempotency key, as the contract defines it.
    static func partition(owner: String, key: String, of partitions: Int) -> Int {
        Int(Partition.crc16("\(owner):\(key)".utf8)) % partitions
    }
}
