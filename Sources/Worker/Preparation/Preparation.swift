import Contract
import CoreMetrics
import CurlTransport
import JSONCodec
import JobQueue
import Support
import Upstream

/// What precedes the request to the model: the recognition of the user's audio and the retrieval of documents. Not thread-safe: used on the
/// upstream loop only, and owned by its generation, which closes it.
final class Preparation {
    /// What the generation must do next.
    enum Step {
        /// The phase has changed, for receipts: `recognizing` or `retrieving`. Another step follows.
        case entered(Phase)
        /// Read the job's audio from Redis, then call `audioRead`.
        case readAudio
        /// Read the interrupt key, then call `checked`.
        case checkInterrupt
        /// The audio was recognized as this text. Another step follows.
        case transcribed(String)
        /// Documents were found. Another step follows.
        case retrieved(Int)
        /// The retrieval failed; the job goes on without it. Another step follows.
        case retrievalFailed(Failure)
        /// The request's body is complete: call the model.
        case ready(JSONObject)
        /// Nothing was said: end the job without a model.
        case noSpeech
        case failed(Failure)
    }

    private enum State {
        case idle
        case readingAudio
        /// Waiting before another try.
        case backoff
        case checking
        case calling
        case over
    }

    private let job: Job
    private let context: GenerationContext
    private let remaining: () -> Duration
    private let emit: (Step) -> Void
    private var state = State.idle
    private var audio: [UInt8]?
    private var transcript: String?
    private var tries = 0
    private var call: ServiceCall?
    private var timer: LoopTimer?
    private var startedAt: UInt64 = 0

    var isOver: Bool { if case .over = state { true } else { false } }

    /// Whether a connection is open.
    var isCalling: Bool { call != nil }

    /// - Parameters:
    ///   - transcript: the transcript that an earlier attempt has logged; nil: none.
    ///   - remaining: the time left for the job.
    ///   - emit: may close the preparation.
    init(
        job: Job, transcript: String?, context: GenerationContext, remaining: @escaping () -> Duration, emit: @escaping (Step) -> Void
    ) {
        self.remaining = remaining
        self.job = job
        self.transcript = transcript
        self.context = context
        self.emit = emit
    }

    /// Whether a job needs a preparation on this worker.
    static func isNeeded(_ job: Job, settings: WorkerSettings) -> Bool {
        job.recognition != nil || job.retrieval != nil && settings.retrieval != nil
    }

    /// Closes the connection and ends everything. Emits nothing afterwards.
    func close() {
        state = .over
        audio = nil
        call?.cancel()
        call = nil
        if let timer { context.loop.cancel(timer) }
        timer = nil
    }

    func begin() {
        guard job.recognition != nil, transcript == nil else { return retrieve() }
        guard context.settings.recognition != nil else {
            return fail(Failure(.recognitionFailed, "this worker has no recognition upstream (SLUICE_RECOGNITION_URL)", retryable: false))
        }
        state = .readingAudio
        emit(.entered(.recognizing))
        emit(.readAudio)
    }

    // MARK: recognition

    /// Continues with the job's audio; nil: Redis has none.
    func audioRead(_ audio: [UInt8]?) {
        guard case .readingAudio = state else { return }
        guard let audio else { return fail(Failure(.recognitionFailed, "the audio of the job is not in Redis any more", retryable: false)) }
        guard !audio.isEmpty else {
            close()
            return emit(.noSpeech)
        }
        self.audio = audio
        startedAt = context.loop.now
        recognize()
    }

    /// Continues after the interrupt key was read and does not exist.
    func checked() {
        guard case .checking = state else { return }
        recognize()
    }

    private func recognize() {
        guard let configuration = context.settings.recognition, let audio, let recognition = job.recognition else { return }
        state = .calling
        tries += 1
        let request = RecognitionRequest(
            jobID: job.id, audio: audio, isWAV: recognition.format == "wav", language: recognition.language, traceparent: job.traceparent)
        let timeout = job.firstTokenTimeoutMilliseconds.map { Duration.milliseconds($0) } ?? context.settings.firstTokenTimeout
        do throws(Failure) {
            call = try context.upstream.recognize(request, on: configuration) { [unowned self] result in recognized(result) }
        } catch {
            return recognized(.failure(UpstreamFailure(failure: error)))
        }
        setTimer(timeout) { [unowned self] in
            recognized(.failure(UpstreamFailure(failure: Failure(.firstTokenTimeout, "the recognition took longer than \(timeout)"))))
        }
    }

    private func recognized(_ result: Result<[UInt8], UpstreamFailure>) {
        endCall()
        do throws(UpstreamFailure) {
            let body = try result.get()
            let text: String
            do throws(Failure) {
                text = try Transcript.text(of: body, kind: context.settings.recognition?.kind ?? .openai)
            } catch { throw UpstreamFailure(failure: error) }
            context.metrics.recognition(nanoseconds: context.loop.now &- startedAt)
            audio = nil
            guard !text.isEmpty else {
                close()
                return emit(.noSpeech)
            }
            transcript = text
            emit(.transcribed(text))
            if !isOver { retrieve() }
        } catch {
            retry(error)
        }
    }

    private func retry(_ error: UpstreamFailure) {
        let failure = error.failure
        let backoff = context.settings.backoff
        var wait = Backoff.bound(from: backoff.lowerBound, to: backoff.upperBound, attempt: tries - 1) * Double.random(in: 0...1)
        if let asked = error.retryAfter { wait = max(wait, asked) }
        guard failure.retryable, tries <= context.settings.retries, wait < remaining() else {
            context.metrics.recognitionFailed.increment()
            let code = failure.upstreamStatus
            return fail(Failure(.recognitionFailed, failure.message, retryable: failure.retryable, upstreamStatus: code))
        }
        state = .backoff
        context.metrics.retries.increment()
        setTimer(wait) { [unowned self] in
            state = .checking
            emit(.checkInterrupt)
        }
    }

    // MARK: retrieval

    private func retrieve() {
        guard let retrieval = job.retrieval, let configuration = context.settings.retrieval else { return finish(nil) }
        let query = transcript ?? retrieval.query ?? ""
        guard !query.isEmpty else { return finish(nil) }
        state = .calling
        emit(.entered(.retrieving))
        startedAt = context.loop.now
        do throws(Failure) {
            call = try context.upstream.retrieve(
                RetrievalRequest(jobID: job.id, query: query, traceparent: job.traceparent), on: configuration
            ) { [unowned self] result in retrieved(result) }
        } catch {
            return retrieved(.failure(UpstreamFailure(failure: error)))
        }
        setTimer(configuration.timeout) { [unowned self] in
            let message = "the retrieval took longer than \(configuration.timeout) (SLUICE_RETRIEVAL_TIMEOUT)"
            retrieved(.failure(UpstreamFailure(failure: Failure(.upstreamUnreachable, message))))
        }
    }

    private func retrieved(_ result: Result<[UInt8], UpstreamFailure>) {
        endCall()
        do throws(Failure) {
            let artifacts: Artifacts
            switch result {
            case .success(let body): artifacts = try Artifacts(body)
            case .failure(let error): throw error.failure
            }
            context.metrics.retrieval(nanoseconds: context.loop.now &- startedAt)
            emit(.retrieved(artifacts.count))
            if !isOver { finish(artifacts.text) }
        } catch {
            emit(.retrievalFailed(error))
            if !isOver { finish(nil) }
        }
    }

    // MARK: the end

    private func finish(_ documents: String?) {
        let body = Self.body(job.request, transcript: transcript, documents: documents ?? "")
        close()
        emit(.ready(body))
    }

    private func fail(_ failure: Failure) {
        close()
        emit(.failed(failure))
    }

    private func endCall() {
        call?.cancel()
        call = nil
        if let timer { context.loop.cancel(timer) }
        timer = nil
    }

    private func setTimer(_ wait: Duration, _ body: @escaping () -> Void) {
        timer = context.loop.schedule(after: wait) { [unowned self] in
            timer = nil
            body()
        }
    }

    /// The request with the last user message completed: the documents, then the transcript or the text that was there.
    static func body(_ request: JSONObject, transcript: String?, documents: String) -> JSONObject {
        guard transcript != nil || !documents.isEmpty, var messages = request["messages"]?.array,
            let index = messages.lastIndex(where: { $0["role"]?.string == "user" }), var message = messages[index].object
        else { return request }
        if transcript == nil, let parts = message["content"]?.array {
            message["content"] = .array([["type": "text", "text": .string(documents)]] + parts)
        } else {
            message["content"] = .string(documents + (transcript ?? message["content"]?.string ?? ""))
        }
        messages[index] = .object(message)
        var body = request
        body["messages"] = .array(messages)
        return body
    }
}
