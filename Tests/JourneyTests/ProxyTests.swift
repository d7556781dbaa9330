import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Reverse proxies that reuse their connections to the gateway.
    @Suite struct ProxyTests {
        enum Proxy: String, CaseIterable {
            case nginx, haproxy

            var program: TestProgram { self == .nginx ? .nginx : .haproxy }

            /// The configuration of a proxy that keeps its connections to the gateway open and reuses them for any client.
            func configuration(port: Int, gateway: Int, folder: String) -> String {
                switch self {
                case .nginx:
                    """
                    daemon off;
                    pid \(folder)/nginx.pid;
                    worker_processes 1;
                    events { worker_connections 256; }
                    http {
                        access_log off;
                        client_body_temp_path \(folder)/body;
                        proxy_temp_path \(folder)/proxy;
                        fastcgi_temp_path \(folder)/fastcgi;
                        uwsgi_temp_path \(folder)/uwsgi;
                        scgi_temp_path \(folder)/scgi;
                        map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
                        upstream gateway { server 127.0.0.1:\(gateway); keepalive 2; }
                        server {
                            listen 127.0.0.1:\(port);
                            location / {
                                proxy_pass http://gateway;
                                proxy_http_version 1.1;
                                proxy_set_header Host $host;
                                proxy_set_header Upgrade $http_upgrade;
                                proxy_set_header Connection $connection_upgrade;
                            }
                        }
                    }

                    """
                case .haproxy:
                    """
                    defaults
                        mode http
                        timeout connect 40s
                        timeout client 60s
                        timeout server 60s
                        timeout tunnel 60s
                        http-reuse always
                    frontend clients
                        bind 127.0.0.1:\(port)
                        default_backend gateways
                    backend gateways
                        server gateway 127.0.0.1:\(gateway)

                    """
                }
            }

            func start(port: Int, gateway: Int, folder: TemporaryFolder) throws -> ChildProcess {
                let file = folder.file("\(rawValue).conf")
                try configuration(port: port, gateway: gateway, folder: folder.path)
                    .write(toFile: file, atomically: true, encoding: .utf8)
                let log = folder.file("\(rawValue).log")
                let arguments = self == .nginx ? ["-p", folder.path, "-e", "stderr", "-c", file] : ["-db", "-f", file]
                return try ChildProcess.spawn(program.require(), arguments, output: log, errors: log)
            }
        }

        @Test(.needs(.nginx, .haproxy), arguments: Proxy.allCases)
        func `sockets, streams and disconnects work behind a proxy that reuses connections`(proxy: Proxy) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let port = Ports.free()
                let process = try proxy.start(port: port, gateway: gateway.port, folder: lab.folder)
                try await until("the proxy to serve") { (try? await HTTPCall.get(port, "/healthz"))?.status == 200 }
                for _ in 0..<8 {
                    // Leaves kept connections to the gateway behind, which have served requests.
                    for _ in 0..<3 { #expect(try await HTTPCall.get(port, "/healthz").status == 200) }
                    let client = try await WebSocketClient.connect(port: port)
                    try await client.register(key: lab.key)
                    let request = try await client.request(model: lab.model("sim-n5-g1"))
                    #expect(try await request.ended().end == .finished)
                    await client.close()
                    #expect(client.problems.isEmpty, "\(client.problems)")
                }
                let streamed = try await completion(lab, port, lab.model("sim-n5-g1"))
                try await streamed.wait(for: "data: [DONE]")
                try await streamed.close()
                // The proxy passes a client's disconnect on.
                let model = lab.model("sim-n3000-g10")
                let left = try await completion(lab, port, model)
                try await left.wait(for: "w3")
                try await left.close()
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
                await process.destroy()
            }
        }

        private func completion(_ lab: Lab, _ port: Int, _ model: String) async throws -> RawHTTPConnection {
            let connection = try await RawHTTPConnection(port)
            let body = #"{"model":"\#(model)","stream":true,"messages":[{"role":"user","content":"x"}]}"#
            try await connection.request("POST", "/v1/chat/completions", body: body, key: lab.key)
            return connection
        }
    }
}
