import Contract
import CoreMetrics
import JobQueue
import NIOCore
import Support

/// VOICE requests: collects the audio of one utterance and starts the request when it is complete.
extension ClientSocket {
    /// Handles a binary frame: audio of the open VOICE request. Other audio is dropped: clients flush their microphone after the end of the
    /// request.
    func receivedAudio(_ audio: ByteBuffer) {
        guard let session, upload?.acceptsBinary == true else { return GatewayMetrics.audioFramesDropped.increment() }
        upload?.append(audio.readableBytesView)
        hold(audio.readableBytes, in: session)
    }

    /// Handles a REQUEST with `data_type` VOICE.
    /// - Throws: the ERROR to send. The open VOICE request is discarded when it is the one that failed.
    func voice(_ payload: RequestPayload, _ voice: VoicePayload, in session: Session) throws(ProtocolError) {
        if upload?.id == payload.id, var continued = upload {
            // A second reference would copy all earlier audio.
            upload = nil
            let isComplete: Bool
            do throws(ProtocolError) { isComplete = try continued.append(voice) } catch {
                upload = continued
                discardUpload(failed: true)
                throw error
            }
            self.upload = continued
            hold(voice.audio.count, in: session)
            guard isComplete, let whole = self.upload else { return }
            discardUpload()
            return try gateway.registry.request(whole.first, speaking: whole.audio, as: whole.jobID, in: session)
        }
        guard voice.sequence == nil || voice.sequence == 0 else {
            // Pieces of an utterance that was refused or interrupted: its client has the answer already.
            if payload.id == discardedUpload { return }
            throw ProtocolError(.streamSequence, "no VOICE request with this id is open", requestID: payload.id)
        }
        guard upload == nil else {
            throw ProtocolError(.streamSequence, "another VOICE request is open on this connection", requestID: payload.id)
        }
        guard voice.audio.count <= settings.audioMaximum else { throw Self.tooMuchAudio(payload.id, settings.audioMaximum) }
        try gateway.registry.admitVoice(payload, in: session)
        let jobID = JobID(partition: session.partition, milliseconds: UInt64(max(0, WallClock.milliseconds)))
        guard voice.sequence != nil else {
            return try gateway.registry.request(payload, speaking: voice.audio, as: jobID, in: session)
        }
        upload = VoiceUpload(payload, voice: voice, jobID: jobID)
        discardedUpload = nil
        hold(voice.audio.count, in: session)
    }

    /// Accounts for received audio; refuses the VOICE request when it is too much.
    private func hold(_ bytes: Int, in session: Session) {
        guard let upload else { return }
        session.account.hold(bytes)
        uploadAccount = session.account
        uploadBytes += bytes
        guard upload.audio.count > settings.audioMaximum || !session.account.hasRoom(for: 0) else { return }
        let error =
            upload.audio.count > settings.audioMaximum
            ? Self.tooMuchAudio(upload.id, settings.audioMaximum)
            : ProtocolError(.rateLimited, "too many bytes in memory for this tenant", retryable: true, requestID: upload.id)
        discardUpload(failed: true)
        send(error)
    }

    private static func tooMuchAudio(_ id: String, _ maximum: Int) -> ProtocolError {
        ProtocolError(.payloadTooLarge, "the audio is larger than \(maximum) bytes", requestID: id)
    }

    /// Forgets the open VOICE request.
    /// - Parameter failed: whether its further pieces are ignored, because its client has an answer already.
    func discardUpload(failed: Bool = false) {
        guard let upload else { return }
        if failed { discardedUpload = upload.id }
        self.upload = nil
        uploadAccount?.release(uploadBytes)
        uploadBytes = 0
    }

    /// Interrupts the open VOICE request: nothing was submitted.
    func interruptUpload(reason: String, in session: Session) {
        guard let upload else { return }
        discardUpload(failed: true)
        gateway.registry.endUnsubmitted(upload.first, as: upload.jobID, reason: reason, in: session)
    }
}
