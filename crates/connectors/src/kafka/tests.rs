//! Sources over the broker that librdkafka brings for tests. What needs a real one is in the tests of the whole.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use windrow_core::{Limits, ManualClock};

use super::*;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    cluster
}

fn produce(cluster: &Cluster, topic: &str, partition: i32, values: impl Iterator<Item = i64>) {
    let mut config = ClientConfig::new();
    let producer: BaseProducer =
        config.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for value in values {
        let value = format!("{{\"n\": {value}}}");
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
        producer.send(record).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

async fn source(cluster: &Cluster, topic: &str, more: &[(&str, &str)]) -> Arc<dyn Source> {
    let env = ConnectorEnv {
        limits: Limits::default(),
        clock: Arc::new(ManualClock::at(0)),
        io: tokio::runtime::Handle::current(),
        files: crate::Files::anywhere(),
    };
    let fields =
        vec![Field::new("n", DataType::Int64, true), Field::new("o", DataType::Int64, true)];
    let declared = Declared {
        schema: Some(Arc::new(Schema::new(fields))),
        metadata: vec![("o".to_owned(), "offset".to_owned())],
        ..Declared::default()
    };
    let servers = cluster.bootstrap_servers();
    let given = [("bootstrap.servers", servers.as_str()), ("topic", topic)];
    let options = given.iter().chain(more);
    let options: Vec<_> = options.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    open(&options, &declared, &env).await.unwrap()
}

fn scan(until_now: bool, from: Option<u64>, batch_rows_max: usize) -> ScanRequest {
    ScanRequest { until_now, from, ..ScanRequest::of_now(vec![0, 1], batch_rows_max) }
}

/// The numbers of a batch, whose column of offsets is that of its rows.
fn numbers(rows: &RecordBatch, offsets: &dyn windrow_core::RowOffsets) -> Vec<i64> {
    let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().to_vec();
    for (row, offset) in column(1).into_iter().enumerate() {
        assert_eq!(offset, i64::try_from(offsets.offset(row)).unwrap());
    }
    column(0)
}

/// Reads up to `most` rows, and checks that ranges tile; the last end.
async fn take(reader: &mut Box<dyn Reader>, most: usize) -> (Vec<i64>, u64) {
    let (mut found, mut end) = (vec![], None);
    while found.len() < most {
        let Some(batch) = reader.next().await.unwrap() else { break };
        assert!(end.is_none_or(|end| end == batch.offsets.start()));
        end = Some(batch.offsets.end());
        found.extend(numbers(&batch.rows, batch.row_offsets.as_ref()));
    }
    (found, end.unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_start_and_batch_gives_the_same_rows() {
    let cluster = cluster(&[("t", 2)]);
    produce(&cluster, "t", 0, 0..500);
    produce(&cluster, "t", 1, 1000..1003);
    let source = source(&cluster, "t", &[]).await;
    assert!(source.notices().is_empty());
    let partitions = source.discover().await.unwrap();
    let names: Vec<_> = partitions.iter().map(|p| (p.id.0, p.name.as_str())).collect();
    assert_eq!(names, [(0, "t-0"), (1, "t-1")]);
    for (from, batch) in [(None, 1_000), (None, 7), (Some(0), 100), (Some(123), 50), (Some(500), 1)]
    {
        let mut reader =
            source.open(&partitions[0].splits[0], &scan(true, from, batch)).await.unwrap();
        let (rows, _) = take(&mut reader, usize::MAX).await;
        let first = i64::try_from(from.unwrap_or(0)).unwrap();
        assert_eq!(rows, (first..500).collect::<Vec<_>>(), "{from:?}, {batch}");
    }
    let error =
        source.open(&partitions[0].splits[0], &scan(true, Some(501), 1)).await.err().unwrap();
    assert!(error.message().contains("ends at offset 500, and was read up to 501"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_one_partition_are_independent_and_wake() {
    let cluster = cluster(&[("t", 1)]);
    produce(&cluster, "t", 0, 0..10);
    let source = source(&cluster, "t", &[]).await;
    let split = source.discover().await.unwrap()[0].splits[0].clone();
    let mut first = source.open(&split, &scan(false, None, 100)).await.unwrap();
    let mut second = source.open(&split, &scan(false, Some(5), 100)).await.unwrap();
    assert_eq!(take(&mut first, 10).await, ((0..10).collect(), 10));
    // The clock stands still: the client alone wakes the readers.
    let waiting = tokio::spawn(async move {
        let taken = take(&mut first, 5).await;
        (first, taken)
    });
    produce(&cluster, "t", 0, 10..15);
    let (first, taken) = waiting.await.unwrap();
    assert_eq!(taken, ((10..15).collect(), 15));
    assert_eq!(take(&mut second, 10).await, ((5..15).collect(), 15));
    drop(first);
    let mut third = source.open(&split, &scan(true, Some(14), 100)).await.unwrap();
    assert_eq!(take(&mut third, 9).await, (vec![14], 15));
    assert!(third.next().await.unwrap().is_none());
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_appears_later_is_read_from_its_beginning() {
    let cluster = cluster(&[("orders-1", 1)]);
    produce(&cluster, "orders-1", 0, 0..3);
    let source = source(&cluster, "^orders-", &[("start", "latest")]).await;
    let found = source.discover().await.unwrap();
    assert_eq!(found[0].splits[0].place.as_deref(), Some("3"));
    cluster.create_topic("orders-2", 1, 1).unwrap();
    cluster.create_topic("other", 1, 1).unwrap();
    produce(&cluster, "orders-2", 0, 7..9);
    let found = source.discover().await.unwrap();
    let names: Vec<_> = found.iter().map(|p| (p.id.0, p.name.as_str())).collect();
    assert_eq!(names, [(0, "orders-1-0"), (1, "orders-2-0")]);
    let mut reader = source.open(&found[1].splits[0], &scan(true, None, 10)).await.unwrap();
    assert_eq!(take(&mut reader, 10).await.0, [7, 8]);
    let mut reader = source.open(&found[0].splits[0], &scan(true, None, 10)).await.unwrap();
    assert!(take(&mut reader, 10).await.0.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_begins_where_the_first_start_did() {
    let cluster = cluster(&[("t", 2)]);
    produce(&cluster, "t", 0, 0..3);
    let first = source(&cluster, "t", &[("start", "latest")]).await;
    let place = first.discover().await.unwrap()[0].splits[0].place.clone().unwrap();
    produce(&cluster, "t", 0, 3..5);
    let again = source(&cluster, "t", &[("start", "latest")]).await;
    again.recall("t-0", &place).unwrap();
    let found = again.discover().await.unwrap();
    // Nothing was read before: the position is 0, the place says where it begins.
    let request = ScanRequest { place: Some(place), ..scan(true, Some(0), 10) };
    let mut reader = again.open(&found[0].splits[0], &request).await.unwrap();
    assert_eq!(take(&mut reader, 10).await, (vec![3, 4], 5));
    // The other one was not there before.
    assert_eq!(found[1].splits[0].place.as_deref(), Some(EARLIEST));
    assert!(again.recall("t", "3").is_err() && again.recall("t-0", "soon").is_err());
}
