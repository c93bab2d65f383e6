//! A client without a library's manners: it sends what it is told to and takes what comes.

use std::sync::Arc;

use bytes::Bytes;
use ha_proto::{ERROR_DETAIL, v1};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls_pki_types::pem::PemObject as _;
use tonic::Code;
use tonic::metadata::MetadataMap;

use super::rig::Server;
use crate::security::testing::{TestCa, TestCert, der};

pub(crate) struct Raw {
    send: SendRequest<Full<Bytes>>,
    /// The certificate that the server showed.
    pub(crate) shown: Vec<u8>,
}

/// What came back.
pub(crate) struct Answer {
    /// Headers came before the status.
    pub(crate) begun: bool,
    last: HeaderMap,
}

impl Raw {
    pub(crate) async fn connect(server: &Server, ca: &TestCa, cert: &TestCert) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&ca.pem)).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(cert.key.as_bytes()).unwrap();
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![cert.der.clone().into()], key)
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("had.prod").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap();
        let shown = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let io = TokioIo::new(tls);
        let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { send, shown }
    }

    /// A call with an empty message.
    pub(crate) async fn call(&mut self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        self.call_with(path, headers, &[0; 5]).await
    }

    pub(crate) async fn call_with(&mut self, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::post(format!("http://n{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let response = self.send.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let begun = !parts.headers.contains_key("grpc-status");
        let last = body
            .collect()
            .await
            .unwrap()
            .trailers()
            .cloned()
            .unwrap_or(parts.headers);
        Answer { begun, last }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> Code {
        Code::from_bytes(self.last.get("grpc-status").map_or(b"2", |v| v.as_bytes()))
    }

    pub(crate) fn detail(&self) -> v1::ErrorDetail {
        let metadata = MetadataMap::from_headers(self.last.clone());
        let value = metadata
            .get_bin(ERROR_DETAIL)
            .unwrap_or_else(|| panic!("no detail in {:?}", self.last));
        v1::ErrorDetail::decode(value.to_bytes().unwrap()).unwrap()
    }
}
