import Contract
import Crypto
import JSONCodec

/// What `POST /v1/jobs` may say.
enum JobSubmission {
    /// Set by the gateway alone.
    private static let forbidden = ["id", "owner", "session"]
    static let maximumKeyLength = 255

    /// - Throws: 400 that names the field at fault.
    static func job(parsing body: [UInt8], id: JobID, owner: String, maximumDepth: Int) throws(HTTPFailure) -> Job {
        let json: JSON
        do { json = try JSON(parsing: body, maximumDepth: maximumDepth) } catch {
            throw HTTPFailure.invalid("the body is not JSON: \(error)")
        }
        guard case .object(var object) = json else { throw HTTPFailure.invalid("the body is not a JSON object") }
        for name in forbidden where object[name] != nil { throw HTTPFailure.invalid("\"\(name)\" may not be set: the gateway does") }
        object["id"] = .string(id.rawValue)
        do {
            var job = try Job(.object(object))
            job.owner = owner
            return job
        } catch {
            throw HTTPFailure.invalid(error.reason)
        }
    }

    /// The key as it is stored, so that no tenant's key ever meets another's.
    ///
    /// Redis knows it as `<owner>:<key>`, which says who the owner is only while owners hold no colon. The keys of one who does (a JWT's
    /// `sub` may be a URN) get a control character before them, which no header can bring.
    /// - Returns: nil when it is not 1 to 255 printable ASCII characters.
    static func idempotencyKey(_ header: String, owner: String) -> String? {
        guard (1...maximumKeyLength).contains(header.utf8.count), header.utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) else { return nil }
        return owner.utf8.contains(UInt8(ascii: ":")) ? "\u{1}" + header : header
    }

    /// SHA-256 in hexadecimal.
    static func digest(_ body: [UInt8]) -> String {
        let digits = Array("0123456789abcdef")
        return String(SHA256.hash(data: body).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    /// Where the contract wants the id of a job that came with a key.
    static func partition(owner: String, key: String, of partitions: Int) -> Int {
        Int(Partition.crc16("\(owner):\(key)".utf8)) % partitions
    }
}
