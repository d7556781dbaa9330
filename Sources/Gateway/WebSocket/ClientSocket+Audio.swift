import CoreMetrics
import NIOCore

/// Audio from the client's microphone.
extension ClientSocket {
    /// Drops audio outside of a VOICE request: clients flush their microphone after the end of the request.
    func receivedAudio(_ audio: ByteBuffer) {
        GatewayMetrics.audioFramesDropped.increment()
    }
}
