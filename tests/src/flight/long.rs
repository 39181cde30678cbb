//! Messages that are longer than the server reads: refused by their length, whatever follows, without an effect on
//! other clients.

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, FlightData, FlightDescriptor};
use futures::{TryStreamExt, stream};
use libtest_mimic::{Failed, Trial};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::flight::serving::Serving;
use crate::flight::{Follower, lines, run};
use crate::flight_guard::declared;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("flight/messages over the limit are refused and not held", long)]
}

const LONG: usize = 64 << 20;
/// What the server may take over all of it, beside 64 MiB a message.
const GROWTH_MAX: u64 = 40 << 20;

/// What becomes of a DoPut with these messages.
async fn put(channel: &Channel, messages: Vec<FlightData>) -> Result<Status, Failed> {
    let mut client = FlightServiceClient::new(channel.clone());
    let answers = match client.do_put(stream::iter(messages)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Ok(status),
    };
    let answers: Result<Vec<_>, Status> = answers.try_collect().await;
    Ok(answers.err().ok_or("it is taken")?)
}

fn long() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let serving = Serving::start(home.path(), &["--max-message", "1MiB"])?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let channel = serving.channel().await?;
        let mut client = FlightSqlServiceClient::new(channel.clone());
        let view = "CREATE MATERIALIZED VIEW v AS SELECT text FROM s";
        run(&mut client, &["CREATE STREAM s (text VARCHAR)", view]).await?;
        let mut result = Follower::of(&mut client, "SUBSCRIBE TO v").await?;
        result.told().await?;
        let path = Some(FlightDescriptor::new_path(vec!["s".to_owned()]));
        let text: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["a"]));
        let rows = RecordBatch::try_from_iter([("text", text)])?;
        let short: Vec<FlightData> = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(path.clone())
            .build(stream::iter([Ok(rows)]))
            .try_collect()
            .await?;
        let body = bytes::Bytes::from(vec![7; LONG]);
        let long =
            FlightData { data_body: body.clone(), flight_descriptor: path, ..Default::default() };
        let resident = serving.resident()?;
        for times in 0..3 {
            // At once, and behind a batch that is good.
            let mut behind = short.clone();
            behind.push(long.clone());
            for messages in [vec![long.clone()], behind] {
                let refused = put(&channel, messages).await?;
                assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
                let words = ["too large", "1048576 bytes", "raise --max-message"];
                assert!(words.iter().all(|w| refused.message().contains(w)), "{refused:?}");
            }
            // The batch before was taken, and those who do not send are served.
            let rows = result.told().await?;
            assert_eq!(rows.sequence, times + 1, "{rows:?}");
            let action = Action { r#type: "CreatePreparedStatement".into(), body: body.clone() };
            let refused = FlightServiceClient::new(channel.clone()).do_action(action).await;
            let refused = refused.err().ok_or("it is taken")?;
            assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
            assert!(refused.message().contains("too large"), "{refused:?}");
        }
        // One that only says that it has a gigabyte: nobody waits for it.
        let code = declared(&channel, serving.address, 1 << 30).await?;
        assert!(code == "8" || code == "11", "gRPC status {code}");
        let count = lines(&run(&mut client, &["SELECT count(*) FROM s"]).await?)?;
        assert_eq!(count, ["3"]);
        let grown = serving.resident()?.saturating_sub(resident);
        assert!(grown < GROWTH_MAX, "{grown} bytes more, after {resident}");
        Ok(())
    })
}
