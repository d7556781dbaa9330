import JSONCodec
import Support

/// A generation request as stored in the queue: the job JSON of the contract.
package struct Job: Sendable, Hashable {
    /// What a new attempt does after the worker of the previous one was lost.
    package enum OnCrash: String, Sendable {
        case `continue`, restart, fail
    }

    /// Parameters of the speech output; nil fields use the worker's defaults.
    package struct Speech: Sendable, Hashable {
        package var model: String?
        package var voice: String?
        package var format: String?

        package init(model: String? = nil, voice: String? = nil, format: String? = nil) {
            self.model = model
            self.voice = voice
            self.format = format
        }
    }

    /// The user's message is audio, under the job's audio key.
    package struct Recognition: Sendable, Hashable {
        /// `pcm` (16 kHz, 16 bits, mono, little-endian) or `wav`.
        package var format: String
        /// Nil: the worker's default.
        package var language: String?

        package init(format: String = "pcm", language: String? = nil) {
            self.format = format
            self.language = language
        }
    }

    /// Documents about the user's message are added to it.
    package struct Retrieval: Sendable, Hashable {
        /// Nil: the transcript.
        package var query: String?

        package init(query: String?) { self.query = query }
    }

    package var id: JobID
    package var session: String?
    package var owner: String?
    package var priority: JobClass
    /// An OpenAI chat-completions body, passed on unchanged.
    package var request: JSONObject
    package var speech: Speech?
    package var recognition: Recognition?
    package var retrieval: Retrieval?
    /// Time in milliseconds since 1970 after which the job fails with `deadline_exceeded`.
    package var deadlineMilliseconds: Int?
    package var firstTokenTimeoutMilliseconds: Int?
    package var idleTimeoutMilliseconds: Int?
    package var totalTimeoutMilliseconds: Int?
    package var onCrash: OnCrash
    package var traceparent: String?
    /// The id of the dead letter's job that this job retries.
    package var retryOf: String?
    /// Whether the upstream only counts the tokens of the prompt. The count is the job's text, in decimal; nothing is generated.
    package var countsTokens = false

    package init(id: JobID, priority: JobClass, request: JSONObject, session: String? = nil, owner: String? = nil) {
        self.id = id
        self.priority = priority
        self.request = request
        self.session = session
        self.owner = owner
        onCrash = .continue
    }

    /// The requested model; nil (also for an empty name) for the worker's default model.
    package var model: String? { request["model"]?.string.flatMap { $0.isEmpty ? nil : $0 } }
}

/// The reason why a text is not a valid job.
package struct JobError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The id of the invalid job, if it was readable.
    package let id: JobID?
    package let reason: String

    package init(id: JobID?, reason: String) {
        self.id = id
        self.reason = reason
    }

    package var description: String { reason }
}

extension Job {
    /// Parses a job.
    /// - Parameter bytes: the job JSON of a queue entry.
    /// - Throws: a `JobError` that names the missing, unknown or invalid field.
    package init(parsing bytes: some Sequence<UInt8>) throws(JobError) {
        let json: JSON
        do { json = try JSON(parsing: bytes) } catch {
            throw JobError(id: nil, reason: "the job is not JSON: \(error)")
        }
        try self.init(json)
    }

    /// Decodes a job.
    /// - Throws: as `init(parsing:)`.
    package init(_ json: JSON) throws(JobError) {
        guard let object = json.object else { throw JobError(id: nil, reason: "the job is not a JSON object") }
        guard let text = object["id"]?.string, let id = JobID(text) else {
            throw JobError(
                id: nil,
                reason: "the job's \"id\" must be a string of 1 to \(JobID.maximumLength) of A-Z a-z 0-9 . _ : -")
        }
        guard let request = object["request"] else { throw JobError(id: id, reason: "the job has no \"request\"") }
        guard case .object(let body) = request else { throw JobError(id: id, reason: "the job's \"request\" is not an object") }
        self.init(id: id, priority: .standard, request: body)
        for member in object.members where member.name != "id" && member.name != "request" {
            do { try read(member) } catch { throw JobError(id: id, reason: error.reason) }
        }
        if let model = body["model"], !model.isNull, model.string == nil {
            throw JobError(id: id, reason: "the request's \"model\" is not a string")
        }
        if let model, model.utf8.count > NameLimit.model {
            throw JobError(id: id, reason: "the request's \"model\" has more than \(NameLimit.model) bytes")
        }
    }

    private struct FieldError: Error { let reason: String }

    /// Decodes one optional field of the job.
    private mutating func read(_ member: JSONObject.Member) throws(FieldError) {
        let name = member.name
        let value = member.value
        func string(_ maximum: Int = 64) throws(FieldError) -> String? {
            if value.isNull { return nil }
            guard let text = value.string else { throw FieldError(reason: "the job's \"\(name)\" is not a string") }
            guard text.utf8.count <= maximum else { throw FieldError(reason: "the job's \"\(name)\" has more than \(maximum) bytes") }
            return text
        }
        func milliseconds() throws(FieldError) -> Int? {
            if value.isNull { return nil }
            guard let number = value.double, number >= 0, number < 1e15 else {
                throw FieldError(reason: "the job's \"\(name)\" is not a number of milliseconds")
            }
            return Int(number)
        }
        switch name {
        case "session": session = try string(NameLimit.id)
        case "owner": owner = try string(NameLimit.owner)
        case "class":
            guard let text = try string() else { return }
            guard let priority = JobClass(rawValue: text) else {
                throw FieldError(reason: "the job's \"class\" is \"\(text.cut(toBytes: 40))\"; it may be interactive, standard or batch")
            }
            self.priority = priority
        case "speech": speech = try Self.speech(value)
        case "recognition": recognition = try Self.recognition(value)
        case "retrieval": retrieval = try Self.retrieval(value)
        case "deadline_ms": deadlineMilliseconds = try milliseconds()
        case "first_token_timeout_ms": firstTokenTimeoutMilliseconds = try milliseconds()
        case "idle_timeout_ms": idleTimeoutMilliseconds = try milliseconds()
        case "total_timeout_ms": totalTimeoutMilliseconds = try milliseconds()
        case "on_crash":
            guard let text = try string() else { return }
            guard let choice = OnCrash(rawValue: text) else {
                throw FieldError(reason: "the job's \"on_crash\" is \"\(text.cut(toBytes: 40))\"; it may be continue, restart or fail")
            }
            onCrash = choice
        case "traceparent": traceparent = try string(NameLimit.traceparent)
        case "count_tokens":
            guard value.isNull || value.bool != nil else { throw FieldError(reason: "the job's \"count_tokens\" is not true or false") }
            countsTokens = value.bool ?? false
        case "retry_of":
            retryOf = try string(NameLimit.id)
            if let retryOf, JobID(retryOf) == nil { throw FieldError(reason: "the job's \"retry_of\" is not a job's id") }
        default: throw FieldError(reason: "the job has an unknown field \"\(name.cut(toBytes: 100))\"")
        }
    }

    private static func speech(_ value: JSON) throws(FieldError) -> Speech? {
        if value.isNull { return nil }
        guard let object = value.object else { throw FieldError(reason: "the job's \"speech\" is not an object") }
        var speech = Speech()
        for member in object.members {
            guard let text = member.value.string else {
                throw FieldError(reason: "the job's \"speech.\(member.name.cut(toBytes: 100))\" is not a string")
            }
            guard text.utf8.count <= NameLimit.voice else {
                throw FieldError(
                    reason: "the job's \"speech.\(member.name.cut(toBytes: 100))\" has more than \(NameLimit.voice) bytes")
            }
            switch member.name {
            case "model": speech.model = text
            case "voice": speech.voice = text
            case "format": speech.format = text
            default: throw FieldError(reason: "the job has an unknown field \"speech.\(member.name.cut(toBytes: 100))\"")
            }
        }
        return speech
    }

    /// Members of an object; nil for null.
    private static func members(_ value: JSON, of field: String) throws(FieldError) -> [JSONObject.Member]? {
        if value.isNull { return nil }
        guard let object = value.object else { throw FieldError(reason: "the job's \"\(field)\" is not an object") }
        return object.members
    }

    private static func recognition(_ value: JSON) throws(FieldError) -> Recognition? {
        guard let members = try members(value, of: "recognition") else { return nil }
        var recognition = Recognition()
        for member in members where !member.value.isNull {
            let text = member.value.string
            switch member.name {
            case "format":
                guard let text, text == "pcm" || text == "wav" else {
                    throw FieldError(reason: "the job's \"recognition.format\" must be pcm or wav")
                }
                recognition.format = text
            case "language":
                guard let text, (1...35).contains(text.utf8.count), text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                    throw FieldError(reason: "the job's \"recognition.language\" is not a language tag")
                }
                recognition.language = text
            default: throw FieldError(reason: "the job has an unknown field \"recognition.\(member.name.cut(toBytes: 100))\"")
            }
        }
        return recognition
    }

    private static func retrieval(_ value: JSON) throws(FieldError) -> Retrieval? {
        guard let members = try members(value, of: "retrieval") else { return nil }
        var retrieval = Retrieval(query: nil)
        for member in members where !member.value.isNull {
            guard member.name == "query" else {
                throw FieldError(reason: "the job has an unknown field \"retrieval.\(member.name.cut(toBytes: 100))\"")
            }
            guard let text = member.value.string else { throw FieldError(reason: "the job's \"retrieval.query\" is not a string") }
            retrieval.query = text
        }
        return retrieval
    }

    /// The job JSON. Nil fields and the default `on_crash` are omitted.
    package var json: JSON {
        var members = JSONObject()
        members["id"] = .string(id.rawValue)
        members["session"] = session.map(JSON.string)
        members["owner"] = owner.map(JSON.string)
        members["class"] = .string(priority.rawValue)
        members["request"] = .object(request)
        if let speech {
            var object = JSONObject()
            object["model"] = speech.model.map(JSON.string)
            object["voice"] = speech.voice.map(JSON.string)
            object["format"] = speech.format.map(JSON.string)
            members["speech"] = .object(object)
        }
        if let recognition {
            members["recognition"] = ["format": .string(recognition.format), "language": recognition.language.map(JSON.string) ?? .null]
        }
        if let retrieval { members["retrieval"] = ["query": retrieval.query.map(JSON.string) ?? .null] }
        members["deadline_ms"] = deadlineMilliseconds.map(JSON.integer)
        members["first_token_timeout_ms"] = firstTokenTimeoutMilliseconds.map(JSON.integer)
        members["idle_timeout_ms"] = idleTimeoutMilliseconds.map(JSON.integer)
        members["total_timeout_ms"] = totalTimeoutMilliseconds.map(JSON.integer)
        if onCrash != .continue { members["on_crash"] = .string(onCrash.rawValue) }
        members["traceparent"] = traceparent.map(JSON.string)
        members["retry_of"] = retryOf.map(JSON.string)
        if countsTokens { members["count_tokens"] = true }
        return .object(members)
    }
}

/// The state of a job: `queued → running → finished | interrupted | failed`. The last three are terminal.
package enum JobState: String, Sendable, CaseIterable {
    case queued, running, finished, interrupted, failed

    package var isTerminal: Bool { self == .finished || self == .interrupted || self == .failed }
}
