import Contract
import JSONCodec
import JWTKit
import Logging

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The claims of a token that the gateway uses (RFC 7519, 4.1).
struct JWTClaims: JWTPayload {
    var subject: String?
    var tenant: String?
    var issuer: String?
    var audience: [String]?
    /// Seconds since 1970.
    var expiration: Double?
    /// Seconds since 1970.
    var notBefore: Double?

    private enum CodingKeys: String, CodingKey {
        case subject = "sub"
        case tenant
        case issuer = "iss"
        case audience = "aud"
        case expiration = "exp"
        case notBefore = "nbf"
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        subject = try container.decodeIfPresent(String.self, forKey: .subject)
        tenant = try container.decodeIfPresent(String.self, forKey: .tenant)
        issuer = try container.decodeIfPresent(String.self, forKey: .issuer)
        expiration = try container.decodeIfPresent(Double.self, forKey: .expiration)
        notBefore = try container.decodeIfPresent(Double.self, forKey: .notBefore)
        // `aud` may be a single string instead of an array.
        if let one = try? container.decodeIfPresent(String.self, forKey: .audience) {
            audience = [one]
        } else {
            audience = try container.decodeIfPresent([String].self, forKey: .audience)
        }
    }

    /// Does nothing: JWTKit verifies the signature, and `JSONWebTokens` validates the claims.
    func verify(using algorithm: some JWTAlgorithm) async throws {}
}

/// Verifies JSON Web Tokens with the keys of the settings.
struct JSONWebTokens: Sendable {
    /// Maximum length of a token in bytes. Longer ones are rejected unread.
    static let maximumLength = 16_384
    /// Tolerated clock difference to the token's issuer, in seconds (RFC 7519, 4.1.4).
    static let leeway = 30.0

    let keys: [JWTVerificationKey]
    let issuer: String?
    let audience: String?
    let requiresExpiration: Bool
    let logger: Logger

    /// Whether a bearer token has the form of a JWT: three parts, the first being a JSON object in base64.
    static func isToken(_ text: String) -> Bool { text.hasPrefix("eyJ") && text.utf8.count { $0 == UInt8(ascii: ".") } == 2 }

    /// - Parameter now: seconds since 1970.
    /// The tenant of a token, from its `tenant` or `sub` claim; nil when the token is invalid.
    func tenant(of token: String, now: Double = Date().timeIntervalSince1970) async -> Tenant? {
        guard token.utf8.count <= Self.maximumLength, let header = Self.header(of: token), let algorithm = header["alg"]?.string,
            // Extensions marked as critical are not supported (RFC 7515, 4.1.11).
            header["crit"] == nil
        else { return refuse("malformed") }
        let identifier = header["kid"]?.string
        for key in keys where key.algorithm == algorithm {
            if let identifier, let own = key.identifier, own != identifier { continue }
            guard let claims = try? await key.verify(token) else { continue }
            if let fault = fault(of: claims, at: now) { return refuse(fault) }
            return Tenant(checking: claims.tenant ?? claims.subject ?? "") ?? refuse("no valid tenant or sub claim")
        }
        return refuse("not signed by a configured key")
    }

    /// Describes why the claims are not acceptable; nil when they are.
    private func fault(of claims: JWTClaims, at now: Double) -> String? {
        if requiresExpiration, claims.expiration == nil { return "no exp claim, and SLUICE_JWT_REQUIRE_EXP is on" }
        if let expiration = claims.expiration, expiration + Self.leeway <= now { return "expired" }
        if let notBefore = claims.notBefore, notBefore - Self.leeway > now { return "not valid yet" }
        if let issuer, claims.issuer != issuer { return "wrong issuer" }
        guard let audience else { return claims.audience == nil ? nil : "has an audience, and SLUICE_JWT_AUDIENCE is not set" }
        return claims.audience?.contains(audience) ?? false ? nil : "wrong audience"
    }

    private func refuse(_ fault: String) -> Tenant? {
        logger.debug("JWT rejected", metadata: ["fault": "\(fault)"])
        return nil
    }

    private static func header(of token: String) -> JSON? {
        guard let first = token.split(separator: ".", omittingEmptySubsequences: false).first, let bytes = first.base64URLDecoded else {
            return nil
        }
        return try? JSON(parsing: bytes, maximumDepth: 8)
    }
}

extension StringProtocol {
    /// The bytes of base64url text without padding (RFC 4648, 5); nil for invalid text.
    var base64URLDecoded: [UInt8]? {
        let standard = String(map { $0 == "-" ? "+" : $0 == "_" ? "/" : $0 })
        return Data(base64Encoded: standard + String(repeating: "=", count: (4 - standard.utf8.count % 4) % 4)).map { Array($0) }
    }
}
